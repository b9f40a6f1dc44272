//! Images per second in train mode: `train_speed MODEL [BATCH [BATCHES [SIZE]]]`, on random images of 3 × SIZE × SIZE.
//!
//! Set RAYON_NUM_THREADS for the number of threads. Prints the rate, and the most memory held so far, after each batch.

#![allow(clippy::print_stdout)]

mod common;

use std::time::Instant;

use bnkit_engine::{Sample, Statistics, TrainOptions, Trainer};
use common::{Images, peak};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("which model?")?;
    let mut number = |default: usize| {
        arguments
            .next()
            .map_or(Ok(default), |argument| argument.parse())
    };
    let (batch, batches, size) = (number(32)?, number(5)?, number(224)?);
    let model = std::fs::read(&path)?;
    let name = bnkit_engine::inputs(&model)?[0].name.clone();
    let mut images = Images::new(size);
    let start = Instant::now();
    let trainer = Trainer::load(
        &model,
        &TrainOptions {
            input_dims: &[(name.clone(), images.dims.clone())],
            ..TrainOptions::default()
        },
    )?;
    drop(model);
    println!("{path}: loaded in {:.2?}, {}", start.elapsed(), peak());
    let samples: Vec<Sample> = (0..batch)
        .map(|_| Ok(vec![(name.clone(), images.next()?)]))
        .collect::<Result<_, bnkit_model::Error>>()?;
    let mut best = 0f64;
    for _ in 0..batches {
        let start = Instant::now();
        trainer.run(&samples, &Statistics::Batch, false)?;
        let rate = batch as f64 / start.elapsed().as_secs_f64();
        best = best.max(rate);
        println!("{rate:.1} images/s, {}", peak());
    }
    println!("best {best:.1} images/s");
    Ok(())
}
