//! The rules against transformers' written out, and choices by the largest logits alone
//! against choices by all.

use super::*;

fn config() -> InferenceConfig {
    serde_json::from_value(serde_json::json!({
        "max_new_tokens": 8, "do_sample": true, "temperature": 1.0, "top_p": 1.0, "top_k": null, "min_p": null,
        "num_beams": 1, "length_penalty": 1.0, "early_stopping": false, "stream": false,
        "repetition_penalty": 1.0, "batch_size": 1, "use_stop_tokens": false, "stop": [], "clean": [],
        "validation": {"enabled": false, "max_retries": 0}
    }))
    .unwrap()
}

fn random_logits(stream: Stream, at: u64, n: u64) -> Vec<f32> {
    (0..n)
        .map(|i| (stream.normal(at * 1000 + i) * 3.0 * 4.0).round() / 4.0)
        .collect()
}

fn softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let e: Vec<f64> = logits.iter().map(|l| f64::from(l - max).exp()).collect();
    let sum: f64 = e.iter().sum();
    e.into_iter().map(|v| v / sum).collect()
}

/// transformers' TopPLogitsWarper, word for word: ascending order, cumulative
/// probability at most 1 - p goes, the last stays.
fn naive_top_p(logits: &[f32], p: f64) -> Vec<u32> {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[a].total_cmp(&logits[b]).then(b.cmp(&a)));
    let probs = softmax(logits);
    let mut cumulative = 0.0;
    let mut kept = Vec::new();
    for (rank, &i) in order.iter().enumerate() {
        cumulative += probs[i];
        if cumulative > 1.0 - p || rank + 1 == order.len() {
            kept.push(i as u32);
        }
    }
    kept.sort_unstable();
    kept
}

fn naive_top_k(logits: &[f32], k: usize) -> Vec<u32> {
    let mut sorted = logits.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let least = sorted[k.min(sorted.len()) - 1];
    (0..logits.len() as u32)
        .filter(|i| logits[*i as usize] >= least)
        .collect()
}

fn ids(mut candidates: Vec<Candidate>) -> Vec<u32> {
    candidates.sort_unstable_by_key(|c| c.0);
    candidates.into_iter().map(|c| c.0).collect()
}

fn keep_top_p_of_all(candidates: &mut Vec<Candidate>, p: f64) {
    let largest = largest(candidates);
    candidates.iter_mut().for_each(|c| c.1 -= largest);
    let total: f64 = candidates.iter().map(weight).sum();
    let last = reaching(candidates, p * total).unwrap();
    candidates.truncate(last + 1);
}

fn all(logits: &[f32]) -> Vec<Candidate> {
    logits
        .iter()
        .enumerate()
        .map(|(i, l)| (i as u32, *l))
        .collect()
}

#[test]
fn top_k_and_top_p_equal_the_slow_rules() {
    let stream = Stream::new(21, &[4]);
    for case in 0..400 {
        let logits = random_logits(stream, case, 1 + case * 3 % 700);
        let k = 1 + (stream.bits(case) % 40) as usize;
        // Off the grid of tied sums, where the two orders of adding may differ.
        let p = 0.013_579 + f64::from(stream.uniform(case)) * 0.98;
        let (mut by_k, mut by_p) = (all(&logits), all(&logits));
        keep_top_k(&mut by_k, k);
        keep_top_p_of_all(&mut by_p, p);
        assert_eq!(ids(by_k), naive_top_k(&logits, k), "{case} k {k}");
        assert_eq!(ids(by_p), naive_top_p(&logits, p), "{case} p {p}");
    }
}

#[test]
fn draws_follow_the_probabilities() {
    let logits = vec![0.0, 1.0, -1.0, f32::NEG_INFINITY, 2.0];
    let sampler = Sampler::new(&InferenceConfig {
        temperature: 0.5,
        ..config()
    })
    .unwrap();
    let want = softmax(&logits.iter().map(|l| l / 0.5).collect::<Vec<_>>());
    let stream = Stream::new(1, &[]);
    let n = 40_000;
    let mut counts = [0.0; 5];
    for counter in 0..n {
        let id = sampler.next_token(&logits, &[], stream, counter).unwrap();
        counts[id as usize] += 1.0 / n as f64;
    }
    for (got, want) in counts.iter().zip(&want) {
        assert!((got - want).abs() < 0.01, "{counts:?} {want:?}");
    }
    let again = |c| sampler.next_token(&logits, &[], stream, c).unwrap();
    assert_eq!(
        (0..50).map(again).collect::<Vec<_>>(),
        (0..50).map(again).collect::<Vec<_>>()
    );
}

#[test]
fn narrow_settings_are_greedy() {
    let stream = Stream::new(2, &[]);
    let greedy = Sampler::new(&InferenceConfig {
        do_sample: false,
        ..config()
    })
    .unwrap();
    assert!(!greedy.do_sample);
    let narrow = [
        Sampler::new(&InferenceConfig {
            top_k: Some(1),
            ..config()
        })
        .unwrap(),
        Sampler::new(&InferenceConfig {
            top_p: 1e-9,
            ..config()
        })
        .unwrap(),
        Sampler::new(&InferenceConfig {
            temperature: 1e-4,
            ..config()
        })
        .unwrap(),
    ];
    for case in 0..50 {
        let logits: Vec<f32> = (0..99).map(|i| stream.normal(case * 99 + i)).collect();
        let want = argmax(&logits).unwrap();
        assert_eq!(greedy.next_token(&logits, &[], stream, case), Ok(want));
        for sampler in &narrow {
            assert_eq!(sampler.next_token(&logits, &[], stream, case), Ok(want));
        }
    }
}

#[test]
fn the_penalty_counts_each_token_once() {
    let logits = [3.0, -2.0, 2.9, 0.0];
    assert_eq!(
        *penalized(&logits, &[0, 0, 1, 3, 77], 2.0),
        [1.5, -4.0, 2.9, 0.0]
    );
    let sampler = Sampler::new(&InferenceConfig {
        do_sample: false,
        repetition_penalty: 2.0,
        ..config()
    })
    .unwrap();
    assert_eq!(
        sampler.next_token(&logits, &[0], Stream::new(0, &[]), 0),
        Ok(2)
    );
}

#[test]
fn bad_logits_and_settings_are_errors() {
    let stream = Stream::new(0, &[]);
    for do_sample in [true, false] {
        let sampler = Sampler::new(&InferenceConfig {
            do_sample,
            ..config()
        })
        .unwrap();
        assert_eq!(
            sampler.next_token(&[f32::NAN; 3], &[], stream, 0),
            Err(SamplingError::NoFinite)
        );
    }
    let bad = |c: InferenceConfig| Sampler::new(&c).unwrap_err();
    assert_eq!(
        bad(InferenceConfig {
            temperature: -1.0,
            ..config()
        }),
        SamplingError::Temperature(-1.0)
    );
    assert_eq!(
        bad(InferenceConfig {
            top_p: 1.5,
            ..config()
        }),
        SamplingError::TopP(1.5)
    );
    assert_eq!(
        bad(InferenceConfig {
            repetition_penalty: 0.0,
            ..config()
        }),
        SamplingError::RepetitionPenalty(0.0)
    );
    let cold = InferenceConfig {
        temperature: 0.0,
        ..config()
    };
    let cold = Sampler::new(&cold).unwrap();
    assert!(!cold.do_sample && cold.sampling().do_sample);
    let tiny = InferenceConfig {
        temperature: 1e-38,
        ..config()
    };
    let tiny = Sampler::new(&tiny).unwrap();
    assert_eq!(tiny.next_token(&[1.0, 9.0, 8.5], &[], stream, 3), Ok(1));
}

/// Logits on a grid, so that equals occur, and some that are not finite.
fn grid(stream: Stream, case: u64, n: u64) -> Vec<f32> {
    let mut logits = random_logits(stream, case, n);
    for (i, logit) in logits.iter_mut().enumerate() {
        match stream.bits(1 << 40 | case << 20 | i as u64) % 50 {
            0 => *logit = f32::NAN,
            1 => *logit = f32::NEG_INFINITY,
            2 => *logit = f32::INFINITY,
            _ => {}
        }
    }
    logits
}

#[test]
fn the_largest_logits_choose_as_all_do() {
    let stream = Stream::new(31, &[]);
    let (mut sure, mut unsure) = (0, 0);
    for case in 0..1500_u64 {
        let pick = |at: u64, n: u64| stream.bits(case << 8 | at) % n;
        let config = InferenceConfig {
            do_sample: pick(0, 4) > 0,
            temperature: [0.3, 0.7, 1.0, 1.5][pick(1, 4) as usize],
            top_k: [None, Some(1), Some(20), Some(150)][pick(2, 4) as usize],
            top_p: [1.0, 0.5, 0.9, 0.9999][pick(3, 4) as usize],
            min_p: [None, Some(0.0), Some(0.05)][pick(4, 3) as usize],
            repetition_penalty: [1.0, 1.3, 40.0, 0.8][pick(5, 4) as usize],
            ..config()
        };
        let sampler = Sampler::new(&config).unwrap();
        let n = 1 + pick(6, 2000);
        let logits = grid(stream, case, n);
        let seen: Vec<u32> = (0..pick(7, 300)).map(|i| pick(8 + i, n) as u32).collect();
        let counter = case;
        let want = sampler.next_token(&logits, &seen, stream, counter);
        let Wanted::Leading { count, temperature } = sampler.wants() else {
            continue;
        };
        // A device may list more than was asked for.
        for count in [count, count + pick(9, 30) as usize] {
            let leading = Leading::of(&logits, count, temperature);
            let got = sampler.next_among(&leading, &seen, stream.bits(counter));
            match got {
                Ok(None) => unsure += 1,
                Ok(Some(token)) => {
                    assert_eq!(Ok(token), want, "{config:?} {count} of {n}");
                    sure += 1;
                }
                Err(problem) => assert_eq!(Err(problem), want),
            }
        }
    }
    assert!(
        sure > 1000 && unsure > 20 && unsure < sure,
        "{sure} {unsure}"
    );
}

#[test]
fn what_is_wanted_of_the_logits() {
    let wants = |config: InferenceConfig| Sampler::new(&config).unwrap().wants();
    let greedy = InferenceConfig {
        do_sample: false,
        ..config()
    };
    assert_eq!(wants(greedy.clone()), Wanted::Likeliest);
    let leading = |count, temperature| Wanted::Leading { count, temperature };
    assert_eq!(wants(config()), leading(NUCLEUS, Some(1.0)));
    let penalized = |repetition_penalty| InferenceConfig {
        repetition_penalty,
        ..greedy.clone()
    };
    assert_eq!(wants(penalized(1.2)), leading(1 + PENALIZED, None));
    assert_eq!(wants(penalized(0.9)), Wanted::All);
    let of = |top_k, top_p, min_p| {
        wants(InferenceConfig {
            temperature: 0.5,
            top_k,
            top_p,
            min_p,
            ..config()
        })
    };
    assert_eq!(of(Some(50), 0.9, None), leading(50, None));
    assert_eq!(of(Some(MOST_LEADING + 1), 0.9, None), Wanted::All);
    assert_eq!(of(None, 0.9, Some(0.1)), leading(NUCLEUS, Some(0.5)));
    assert_eq!(of(None, 1.0, Some(0.1)), leading(NUCLEUS, None));
    assert_eq!(of(None, 1.0, Some(0.0)), leading(NUCLEUS, Some(0.5)));
    let penalized = |top_k| InferenceConfig {
        repetition_penalty: 1.1,
        top_k,
        ..config()
    };
    assert_eq!(wants(penalized(None)), Wanted::All);
    assert_eq!(wants(penalized(Some(9))), leading(9 + PENALIZED, None));
}
