//! What a proof's runs cost: `eval_speed MODEL [SAMPLES [SIZE]]`, in single and in double precision, on random images of
//! 3 × SIZE × SIZE.
//!
//! Prints, for each precision, the time to load, the time of a sample (the first apart), and the most memory held so far.

#![allow(clippy::print_stdout)]

mod common;

use std::time::Instant;

use bnkit_engine::{LoadOptions, Precision, Session};
use common::{Images, peak};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("which model?")?;
    let mut number = |default: usize| {
        arguments
            .next()
            .map_or(Ok(default), |argument| argument.parse())
    };
    let (samples, size) = (number(4)?, number(224)?);
    let model = std::fs::read(&path)?;
    let name = bnkit_engine::inputs(&model)?[0].name.clone();
    let mut images = Images::new(size);
    for precision in [Precision::F32, Precision::F64] {
        let start = Instant::now();
        let session = Session::load(
            &model,
            &LoadOptions {
                precision,
                input_dims: &[(name.clone(), images.dims.clone())],
                model_dir: None,
                extra_outputs: &[],
                perturbation: None,
            },
        )?;
        println!(
            "{precision:?}: loaded in {:.3?}, {}",
            start.elapsed(),
            peak()
        );
        let mut times = vec![];
        for _ in 0..samples {
            let sample = [(name.clone(), images.next()?)];
            let start = Instant::now();
            session.run(&sample)?;
            times.push(start.elapsed());
        }
        println!("{precision:?}: {times:.3?}, {}", peak());
    }
    Ok(())
}
