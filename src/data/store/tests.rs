//! Samples through a store, in memory and as a file, whole and damaged.

use super::*;
use crate::rng::Stream;

/// Fresh samples with labels of every kind.
fn samples(count: usize, seed: u64) -> Vec<Sample> {
    let random = Stream::new(seed, &[]);
    let mut at = 0;
    let mut draw = |below: u64| {
        at += 1;
        random.bits(at) % below
    };
    let mut sample = |row| {
        let input_ids: Vec<u32> = (0..draw(40)).map(|_| draw(1 << 32) as u32).collect();
        let mut kind = 0;
        let label = |&id: &u32| {
            if draw(5) == 0 {
                kind = draw(3);
            }
            match kind {
                0 => IGNORED,
                1 => i64::from(id),
                _ => draw(1 << 32) as i64,
            }
        };
        let labels = input_ids.iter().map(label).collect();
        Sample {
            row,
            input_ids,
            labels,
            cut: draw(9) as usize,
        }
    };
    (0..count).map(|i| sample(3 * i + 1)).collect()
}

fn said() -> Said {
    Said {
        examples: 7,
        skipped: vec![":3: bad".to_string()],
        ..Said::default()
    }
}

fn same(store: &Store, samples: &[Sample]) {
    assert_eq!(store.len(), samples.len());
    for (i, sample) in samples.iter().enumerate() {
        assert_eq!(&*store.get(i), sample);
        assert_eq!(store.brief(i), Brief::of(sample));
    }
    assert_eq!(store.said, said());
}

#[test]
fn samples_come_back_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    for (case, count) in [0, 1, 2, 50, 300].into_iter().enumerate() {
        let samples = samples(count, case as u64);
        let mut memory = Writer::new(Vec::new(), false).unwrap();
        let mut file = Writer::new(Vec::new(), true).unwrap();
        for sample in &samples {
            memory.push(sample).unwrap();
            file.push(sample).unwrap();
        }
        same(&memory.into_store(said()).unwrap(), &samples);
        let path = folder.path().join("a.tokens");
        let (bytes, _) = file.finish(&said()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        let store = Arc::new(open(&path).unwrap());
        same(&store, &samples);
        let of: Vec<usize> = (0..count).rev().step_by(2).collect();
        let part = Part { store, of };
        let odd: Vec<&Sample> = samples.iter().rev().step_by(2).collect();
        assert_eq!(part.len(), odd.len());
        assert!((0..odd.len()).all(|i| part.get(i).as_ref() == odd[i]));
    }
}

#[test]
fn labels_take_little_room() {
    let ids: Vec<u32> = (0..1000).collect();
    let label = |id: &u32| if *id < 900 { IGNORED } else { i64::from(*id) };
    let sample = Sample {
        row: 1,
        labels: ids.iter().map(label).collect(),
        input_ids: ids,
        cut: 0,
    };
    let mut words = Vec::new();
    pack(&sample, &mut words);
    assert_eq!(words.len(), 1002);
}

#[test]
fn damage_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tokens");
    let mut writer = Writer::new(Vec::new(), true).unwrap();
    for sample in &samples(20, 5) {
        writer.push(sample).unwrap();
    }
    let (whole, _) = writer.finish(&said()).unwrap();
    let random = Stream::new(6, &[]);
    for case in 0..100 {
        let mut bytes = whole.clone();
        let at = random.bits(2 * case) as usize % bytes.len();
        match case % 2 {
            0 => bytes.truncate(at),
            _ => bytes[at] ^= 1 << (random.bits(2 * case + 1) % 8),
        }
        std::fs::write(&path, bytes).unwrap();
        assert!(matches!(open(&path), Err(Damage::What(_))), "{case}");
    }
    std::fs::write(&path, whole).unwrap();
    assert!(open(&path).is_ok());
}
