use super::*;

fn random(seed: &mut u64) -> f64 {
    *seed = seed
        .wrapping_mul(6364136223846793005)
        .wrapping_add(1442695040888963407);
    (*seed >> 11) as f64 / (1u64 << 53) as f64
}

/// Batches of different sizes, three channels with very different means and spreads: elements[batch][channel][..].
fn batches() -> Vec<Vec<Vec<f64>>> {
    let mut seed = 7;
    (0..9)
        .map(|batch| {
            let size = 3 + (batch * 5) % 7;
            (0..3)
                .map(|channel| {
                    let scale = 10f64.powi(2 * channel - 2);
                    (0..size)
                        .map(|_| 1e3 * scale + scale * random(&mut seed))
                        .collect()
                })
                .collect()
        })
        .collect()
}

fn moments(batch: &[Vec<f64>]) -> Moments {
    let count = batch[0].len() as f64;
    let mean: Vec<f64> = batch
        .iter()
        .map(|x| x.iter().sum::<f64>() / count)
        .collect();
    let m2 = batch
        .iter()
        .zip(&mean)
        .map(|(x, m)| x.iter().map(|x| (x - m).powi(2)).sum());
    Moments {
        count: count as u64,
        m2: m2.collect(),
        mean,
    }
}

fn close(a: &[f64], b: &[f64], tolerance: f64) {
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() <= tolerance * b.abs(), "{a} {b}");
    }
}

const WHOLE: [std::ops::Range<usize>; 1] = [std::ops::Range { start: 0, end: 9 }];

const START: ([f64; 3], [f64; 3]) = ([1.0, -2.0, 3.0], [0.5, 1.0, 2.0]);

fn run(
    method: Method,
    convention: Convention,
    parts: &[std::ops::Range<usize>],
) -> (Vec<f64>, Vec<f64>) {
    let batches = batches();
    let mut total: Option<Estimate> = None;
    for part in parts {
        let mut estimate = Estimate::new(method, 0.8, 3);
        for batch in &batches[part.clone()] {
            estimate.push(&moments(batch), convention).unwrap();
        }
        match &mut total {
            Some(total) => total.merge(&estimate).unwrap(),
            None => total = Some(estimate),
        }
    }
    total
        .unwrap()
        .finish((&START.0, &START.1), convention)
        .unwrap()
}

#[test]
fn precise_is_the_variance_of_all_elements() {
    let all: Vec<Vec<f64>> = (0..3)
        .map(|channel| {
            batches()
                .iter()
                .flat_map(|batch| batch[channel].clone())
                .collect()
        })
        .collect();
    let expected = moments(&all);
    let (mean, variance) = run(Method::Precise, Convention::Onnx, &WHOLE);
    close(&mean, &expected.mean, 1e-14);
    close(&variance, &expected.variance(), 1e-9);
    let (_, unbiased) = run(Method::Precise, Convention::Torch, &WHOLE);
    close(&unbiased, &expected.unbiased_variance(), 1e-9);
    assert_eq!(run(Method::Precise, Convention::Keras, &WHOLE).1, variance);
}

#[test]
fn average_and_ema_follow_their_formulas_under_both_conventions() {
    for convention in [Convention::Onnx, Convention::Torch] {
        let batches = batches();
        let variances = |batch: &Vec<Vec<f64>>| match convention {
            Convention::Torch => moments(batch).unbiased_variance(),
            _ => moments(batch).variance(),
        };
        let (mean, variance) = run(Method::Average, convention, &WHOLE);
        let (ema_mean, ema_variance) = run(Method::Ema, convention, &WHOLE);
        for channel in 0..3 {
            let m: Vec<f64> = batches.iter().map(|b| moments(b).mean[channel]).collect();
            let v: Vec<f64> = batches.iter().map(|b| variances(b)[channel]).collect();
            close(
                &mean[channel..=channel],
                &[m.iter().sum::<f64>() / 9.0],
                1e-14,
            );
            close(
                &variance[channel..=channel],
                &[v.iter().sum::<f64>() / 9.0],
                1e-13,
            );
            let running = |start: f64, values: &[f64]| {
                values.iter().fold(start, |r, x| 0.8 * r + (1.0 - 0.8) * x)
            };
            close(
                &ema_mean[channel..=channel],
                &[running(START.0[channel], &m)],
                1e-13,
            );
            close(
                &ema_variance[channel..=channel],
                &[running(START.1[channel], &v)],
                1e-13,
            );
        }
    }
}

#[test]
fn parts_put_together_in_order_are_the_whole() {
    for method in [Method::Precise, Method::Average, Method::Ema] {
        for convention in [Convention::Onnx, Convention::Torch] {
            let (mean, variance) = run(method, convention, &WHOLE);
            for parts in [
                vec![0..4, 4..9],
                vec![0..1, 1..2, 2..9],
                vec![0..0, 0..9, 9..9],
            ] {
                let (m, v) = run(method, convention, &parts);
                close(&m, &mean, 1e-13);
                close(&v, &variance, 1e-12);
            }
        }
    }
}

#[test]
fn different_methods_do_not_merge() {
    let mut ema = Estimate::new(Method::Ema, 0.9, 3);
    assert!(ema.merge(&Estimate::new(Method::Ema, 0.8, 3)).is_err());
    assert!(ema.merge(&Estimate::new(Method::Average, 0.9, 3)).is_err());
    assert!(ema.merge(&Estimate::new(Method::Ema, 0.9, 2)).is_err());
}

#[test]
fn nothing_seen_gives_nothing() {
    for method in [Method::Precise, Method::Average, Method::Ema] {
        let estimate = Estimate::new(method, 0.9, 3);
        assert_eq!(
            estimate.finish((&START.0, &START.1), Convention::Onnx),
            None
        );
    }
}

#[test]
fn momentum_is_read_by_the_convention() {
    let history = |convention, momentum, stored| {
        let options = MethodOptions {
            method: Method::Ema,
            convention,
            momentum,
            ..MethodOptions::default()
        };
        options
            .history("bn", stored)
            .map_err(|error| error.to_string())
    };
    assert_eq!(history(Convention::Onnx, Some(0.99), 0.5), Ok(0.99));
    assert_eq!(history(Convention::Keras, Some(0.99), 0.5), Ok(0.99));
    assert_eq!(history(Convention::Torch, Some(0.1), 0.5), Ok(0.9));
    assert_eq!(history(Convention::Torch, None, 0.5), Ok(0.5));
    // What PyTorch exports for momentum None.
    let text = history(Convention::Torch, None, 1.0).unwrap_err();
    assert!(
        text.contains("\"bn\"") && text.contains("--momentum"),
        "{text}"
    );
    for wrong in [1.0, -0.1, f64::NAN] {
        assert!(history(Convention::Onnx, Some(wrong), 0.9).is_err());
    }
    assert!(history(Convention::Torch, Some(0.0), 0.9).is_err());
    assert_eq!(history(Convention::Torch, Some(1.0), 0.9), Ok(0.0));
}
