"""Run by test_ray.py: recalibrates on two nodes, simulated on one machine, and compares with one process."""

import pathlib
import sys
import time

import numpy as np
import ray
from ray.cluster_utils import Cluster

import bnkit
import bnkit.ray


def alive():
    return [node for node in ray.nodes() if node["Alive"]]


def main(model):
    images = np.load(model.parent / "train_images.npy")
    node = {"num_cpus": 1, "object_store_memory": 128 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        other = cluster.add_node(**node, resources={"far": 1})
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, log_to_driver=False)
        assert len(alive()) == 2

        for method in ["precise", "average", "ema"]:
            one = bnkit.recalibrate(model, images, method=method, batch_size=64)
            # Two workers with a CPU each do not fit on one of the nodes.
            dataset = ray.data.from_numpy(images)
            ours = bnkit.ray.recalibrate(model, dataset, method=method, batch_size=64, num_workers=2)
            assert ours.model == one.model, method
        # On the other node only, so that the model, all batches and all moments have to travel.
        only = {"resources": {"far": 1}}
        ours = bnkit.ray.recalibrate(model, dataset, method="ema", batch_size=64, num_workers=1, actor_options=only)
        assert ours.model == one.model

        # Then it is gone, with the worker on it and all that lies there.
        def losing():
            for index, at in enumerate(range(0, len(images), 64)):
                if index == 12:
                    cluster.remove_node(other, allow_graceful=False)
                    while len(alive()) > 1:
                        time.sleep(0.1)
                yield images[at : at + 64]

        ours = bnkit.ray.recalibrate(model, losing(), method="ema", num_workers=2)
        assert ours.model == one.model
    finally:
        ray.shutdown()
        cluster.shutdown()
    print("same on 2 nodes, and with one of them lost")


main(pathlib.Path(sys.argv[1]))
