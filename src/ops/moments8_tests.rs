//! 8-bit AdamW against bitsandbytes' own numbers and against a slow, obvious version.

use burn::tensor::{Device, Tensor, TensorData};
use safetensors::SafeTensors;

use super::composed::Composed;
use super::cpu::CPU;
use super::moments8::{BLOCK, Codes, Moments8};
use super::*;

const STEPS: u64 = 6;

fn fixture() -> Vec<u8> {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/adamw_8bit.safetensors"
    );
    std::fs::read(file).unwrap()
}

fn floats(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let bytes = file.tensor(name).unwrap().data().to_vec();
    let parts = bytes.as_chunks::<4>().0.iter();
    parts.map(|b| f32::from_le_bytes(*b)).collect()
}

/// The formula of tests/python/adamw_8bit.py.
fn numbers(seed: u64, n: usize) -> Vec<f32> {
    let one = |i: u64| {
        let mut h = ((i + seed * 1_000_003).wrapping_mul(2_654_435_761)) & 0xFFFF_FFFF;
        h ^= h >> 15;
        h = h.wrapping_mul(2_246_822_519) & 0xFFFF_FFFF;
        h ^= h >> 13;
        ((h >> 8) as f64 / f64::from(1 << 23) - 1.0) as f32
    };
    (0..n as u64).map(one).collect()
}

fn gradient(step: u64, which: u64, n: usize) -> Vec<f32> {
    let g = numbers(100 * step + which, n).into_iter().enumerate();
    g.map(|(i, g)| match (512..768).contains(&i) || i % 7 == 0 {
        true => 0.0,
        false => g * g * g,
    })
    .collect()
}

fn tensor(data: Vec<f32>, shape: [usize; 2]) -> Tensor<2> {
    Tensor::from_data(TensorData::new(data, shape), &Device::flex())
}

fn data(t: &Tensor<2>) -> Vec<f32> {
    t.clone().into_data().iter::<f32>().collect()
}

fn hyper(step: u64) -> AdamW {
    AdamW {
        lr: 3e-3,
        beta1: 0.9,
        beta2: 0.99,
        eps: 1e-8,
        weight_decay: 0.1,
        step,
    }
}

fn no_clip() -> Clip {
    Clip {
        squared_norm: Scalar::Host(0.0),
        max_norm: 0.0,
    }
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let pairs = a.iter().zip(b);
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn codes_and_parameters_are_those_of_bitsandbytes() {
    let bytes = fixture();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(nf4_map::signed().values[..], floats(&file, "signed_map"));
    assert_eq!(
        nf4_map::unsigned().values[..],
        floats(&file, "unsigned_map")
    );
    for (which, name, shape) in [(0, "odd", [70, 63]), (1, "least", [64, 64])] {
        let n = shape[0] * shape[1];
        let mut p = tensor(numbers(which + 1, n), shape);
        let mut moments = Moments8::new(n, &Device::flex());
        for step in 1..=STEPS {
            let g = tensor(gradient(step, which, n), shape);
            (p, moments) = CPU.adamw_8bit(p, &g, moments, &hyper(step), &no_clip());
            let at = |what: &str| format!("{name}.{step}.{what}");
            let Ok(state1) = file.tensor(&at("state1")) else {
                continue;
            };
            let (m, v) = moments.codes();
            let state2 = file.tensor(&at("state2")).unwrap();
            for (kind, codes, want) in [("m", &m, &state1), ("v", &v, &state2)] {
                let pairs = codes.codes.iter().zip(want.data());
                let different = pairs.filter(|(a, b)| a != b).count();
                println!("{}: {different} of {n} codes of {kind} differ", at("codes"));
                assert_eq!(different, 0, "{}: {kind}", at("codes"));
            }
            assert_eq!(m.absmax, floats(&file, &at("absmax1")), "{}", at("absmax1"));
            assert_eq!(v.absmax, floats(&file, &at("absmax2")), "{}", at("absmax2"));
            // torch's square root comes from MKL, which does not round to the nearest.
            let off = largest_difference(&data(&p), &floats(&file, &at("p")));
            assert!(off < 1.2e-7, "{}: {off}", at("p"));
        }
    }
}

#[test]
fn small_tensors_follow_bitsandbytes_in_32_bits() {
    let bytes = fixture();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let shape = [45, 91];
    let n = shape[0] * shape[1];
    assert!(n < moments8::LEAST);
    let mut p = tensor(numbers(3, n), shape);
    let (mut m, mut v) = (p.zeros_like(), p.zeros_like());
    for step in 1..=STEPS {
        let g = tensor(gradient(step, 2, n), shape);
        (p, m, v) = CPU.adamw(p, &g, m, v, &hyper(step), &no_clip());
    }
    for (name, got) in [("p", &p), ("state1", &m), ("state2", &v)] {
        let want = floats(&file, &format!("small.6.{name}"));
        assert!(largest_difference(&data(got), &want) < 1e-6, "{name}");
    }
}

/// The paper's update in f64, number by number; the nearest code by trying all.
struct Slow {
    p: Vec<f64>,
    m: Vec<f64>,
    v: Vec<f64>,
    /// The sizes of what each `m` is the sum of: its rounding error goes with them, and
    /// the two may cancel.
    m_terms: Vec<f64>,
}

impl Slow {
    /// From what the codes stand for.
    fn new(p: &Tensor<2>, (m, v): &(Codes, Codes)) -> Self {
        let numbers = |codes: &Codes, map: &nf4_map::DynamicMap| -> Vec<f64> {
            let all = codes.codes.iter().enumerate();
            all.map(|(i, code)| {
                f64::from(map.values[*code as usize]) * f64::from(codes.absmax[i / BLOCK])
            })
            .collect()
        };
        Self {
            p: data(p).into_iter().map(f64::from).collect(),
            m: numbers(m, nf4_map::signed()),
            v: numbers(v, nf4_map::unsigned()),
            m_terms: Vec::new(),
        }
    }

    fn step(&mut self, g: &[f32], h: &AdamW, factor: f64) {
        let t = h.step as i32;
        self.m_terms.clear();
        for (i, &g) in g.iter().enumerate() {
            let g = f64::from(g) * factor;
            let terms = h.beta1 * self.m[i].abs() + (1.0 - h.beta1) * g.abs();
            self.m_terms.push(terms);
            self.m[i] = h.beta1 * self.m[i] + (1.0 - h.beta1) * g;
            self.v[i] = h.beta2 * self.v[i] + (1.0 - h.beta2) * g * g;
            let m_hat = self.m[i] / (1.0 - h.beta1.powi(t));
            let v_hat = self.v[i] / (1.0 - h.beta2.powi(t));
            self.p[i] -= h.lr * h.weight_decay * self.p[i];
            self.p[i] -= h.lr * m_hat / (v_hat.sqrt() + h.eps);
        }
    }

    /// Codes and maxima of both moments.
    fn codes(&self) -> [(Vec<u8>, Vec<f64>); 2] {
        let (m, v) = (nf4_map::signed(), nf4_map::unsigned());
        [nearest(&self.m, &m.values), nearest(&self.v, &v.values)]
    }
}

fn nearest(x: &[f64], values: &[f32; 256]) -> (Vec<u8>, Vec<f64>) {
    let (mut codes, mut maxima) = (Vec::new(), Vec::new());
    for block in x.chunks(BLOCK) {
        let absmax = block.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        maxima.push(absmax);
        for x in block {
            // On the grid of 65536 points, which the data type is looked up by.
            let point = ((*x / absmax + 1.0) * 32_767.5 + 0.5).floor();
            let on_grid = point / 32_767.5 - 1.0;
            let distance = |i: &u8| (f64::from(values[usize::from(*i)]) - on_grid).abs();
            let best = (0..=255u8).min_by(|a, b| distance(a).total_cmp(&distance(b)));
            codes.push(if absmax == 0.0 { 0 } else { best.unwrap() });
        }
    }
    (codes, maxima)
}

#[test]
fn both_paths_follow_the_slow_update_on_fresh_inputs() {
    let mut s = super::tests::Source::new();
    for shape in [[1, 1], [1, 255], [3, 171], [1, 256], [17, 301], [64, 130]] {
        let n = shape[0] * shape[1];
        let mut p = tensor(s.vec(n), shape);
        let mut state = Moments8::new(n, &Device::flex());
        for step in 1..=4 {
            let g: Vec<f32> = s.vec(n).into_iter().map(|g| g * g * g).collect();
            let squares: f64 = g.iter().map(|g| f64::from(*g).powi(2)).sum();
            let clip = |squared_norm| Clip {
                squared_norm,
                max_norm: 0.4 * squares.sqrt(),
            };
            let host = clip(Scalar::Host(squares));
            let on_device = TensorData::new(vec![squares as f32], [1]);
            let device = clip(Scalar::Device(Tensor::from_data(
                on_device,
                &Device::flex(),
            )));
            // Both paths and the slow one from the same codes, step by step.
            let codes = state.codes();
            let words = Moments8::on_device(&codes.0, &codes.1, &Device::flex());
            let mut slow = Slow::new(&p, &codes);
            slow.step(&g, &hyper(step), host.factor());
            let g = tensor(g, shape);
            let (any, any_state) = Composed.adamw_8bit(p.clone(), &g, words, &hyper(step), &device);
            (p, state) = CPU.adamw_8bit(p, &g, state, &hyper(step), &host);
            let want: Vec<f32> = slow.p.iter().map(|v| *v as f32).collect();
            for (path, p, state) in [("cpu", &p, &state), ("composed", &any, &any_state)] {
                let off = largest_difference(&data(p), &want);
                assert!(off < 3e-6, "{path} {shape:?} step {step}: {off}");
                let (m, v) = state.codes();
                // v is a sum of squares: nothing cancels.
                let terms = [&slow.m_terms, &slow.v];
                for ((got, (codes, maxima)), terms) in [m, v].iter().zip(slow.codes()).zip(terms) {
                    let pairs = got.codes.iter().zip(&codes);
                    let different = pairs.filter(|(a, b)| a != b).count();
                    // A number on the edge of two codes may fall to either side: some
                    // three of a thousand do.
                    let most = (6 + n / 100).min(n - 1);
                    assert!(different <= most, "{path} {shape:?}: {different}");
                    let sizes = terms.chunks(BLOCK);
                    for ((a, b), size) in got.absmax.iter().zip(maxima).zip(sizes) {
                        let size = size.iter().copied().fold(0.0, f64::max);
                        let off = (f64::from(*a) - b).abs();
                        assert!(
                            off <= 2e-6 * size,
                            "{path} {shape:?}: {a} for {b} of {size}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn codes_survive_the_way_to_a_device_and_back() {
    let mut s = super::tests::Source::new();
    for n in [1usize, 255, 256, 257, 4097] {
        let codes = |s: &mut super::tests::Source| Codes {
            codes: (0..n).map(|_| s.below(256) as u8).collect(),
            absmax: s.vec(n.div_ceil(BLOCK)),
        };
        let (m, v) = (codes(&mut s), codes(&mut s));
        let words = Moments8::on_device(&m, &v, &Device::flex());
        assert_eq!(words.codes(), (m, v));
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let mut s = super::tests::Source::new();
    let shape = [97, 301];
    let n = shape[0] * shape[1];
    let (p, g) = (tensor(s.vec(n), shape), tensor(s.vec(n), shape));
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.unwrap().install(|| {
            let (mut p, mut state) = (p.clone(), Moments8::new(n, &Device::flex()));
            for step in 1..=3 {
                (p, state) = CPU.adamw_8bit(p, &g, state, &hyper(step), &no_clip());
            }
            (data(&p), state.codes())
        })
    };
    let one = with(1);
    assert!(one == with(2) && one == with(5));
}
