//! Streams that were valid once: truncated, flipped, spliced. Decoders must return or err, without
//! panic, hang, or memory beyond what the caller allowed.
//!
//! Runs for a fraction of a second by default; `MOMOS_FUZZ_SECONDS` makes it run longer (see
//! `scripts/fuzz.sh`).

use std::time::{Duration, Instant};

use momos_core::codec::entropy::prefix_code::{PrefixCode, code_lengths, length_counts};
use momos_core::codec::exact::fields::{self, Kind};
use momos_core::codec::exact::floats;
use momos_core::codec::grid::geometry::Geometry;
use momos_core::codec::grid::importance::Importance;
use momos_core::codec::grid::stream as grid;
use momos_core::codec::index::indices;
use momos_core::codec::index::paths::{self, Effort};
use momos_core::codec::motifs::tree::MotifTree;
use momos_core::codec::motifs::{coder, table};
use momos_core::float::FloatType;
use momos_core::simd::Available;
use momos_core::{Error, Monitor};

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    fn mutate(&mut self, stream: &[u8]) -> Vec<u8> {
        let mut stream = stream.to_vec();
        for _ in 0..=self.below(4) {
            let (at, length) = (self.below(stream.len()), self.below(16));
            match self.below(6) {
                0 => stream.truncate(at),
                1 => stream.extend((0..length).map(|_| self.next() as u8)),
                2 if !stream.is_empty() => stream[at] ^= 1 << self.below(8),
                3 if !stream.is_empty() => stream[at] = self.next() as u8,
                4 => {
                    let end = (at + length).min(stream.len());
                    let piece = stream[at.min(end)..end].to_vec();
                    let to = self.below(stream.len() + 1);
                    stream.splice(to..to, piece);
                }
                _ => {
                    let end = (at + length).min(stream.len());
                    stream.drain(at.min(end)..end);
                }
            }
        }
        stream
    }
}

fn fuzz(seed: u64, mut once: impl FnMut(&mut Random)) {
    let seconds = std::env::var("MOMOS_FUZZ_SECONDS").map_or(0.4, |text| {
        text.parse()
            .expect("MOMOS_FUZZ_SECONDS is a number of seconds")
    });
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let mut random = Random(if seconds > 1.0 {
        seed ^ u64::from(std::process::id())
    } else {
        seed
    });
    let mut slowest = Duration::ZERO;
    while Instant::now() < end {
        let start = Instant::now();
        once(&mut random);
        slowest = slowest.max(start.elapsed());
    }
    assert!(
        slowest < Duration::from_secs(10),
        "one stream took {slowest:?}"
    );
}

fn table(random: &mut Random, motifs: usize) -> Vec<u8> {
    (0..motifs * 2)
        .flat_map(|_| ((random.below(200) as f32 - 100.0) / 16.0).to_le_bytes())
        .collect()
}

/// Numbers below a bound, most of them small.
fn numbers(random: &mut Random, bound: usize, count: usize) -> Vec<u32> {
    (0..count)
        .map(|_| {
            let bound = if random.below(3) == 0 {
                bound
            } else {
                bound.min(4)
            };
            random.below(bound) as u32
        })
        .collect()
}

/// The announced size, sometimes another one.
fn announced(random: &mut Random, true_size: usize) -> usize {
    match random.below(4) {
        0 => random.below(4 * true_size + 2),
        _ => true_size,
    }
}

#[test]
fn paths_survive() {
    for (seed, effort) in [(1, Effort::Default), (2, Effort::Best)] {
        fuzz(seed, |random| {
            let motifs = 1 + random.below(300);
            let tree = MotifTree::new(&table(random, motifs), 2, FloatType::F32).unwrap();
            // Chunks of many blocks are coded in several lanes.
            let blocks = match (effort, random.below(4)) {
                (Effort::Default, 0) => 16_384 + random.below(300),
                _ => random.below(600),
            };
            let places = numbers(random, motifs, blocks);
            let row_blocks = random.below(40);
            let stream =
                paths::encode(&places, &tree, row_blocks, effort, &Monitor::new()).unwrap();
            for _ in 0..8 {
                let (mutated, blocks) = (random.mutate(&stream), announced(random, blocks));
                if let Ok(places) = paths::decode(&mutated, blocks, &tree, &Monitor::new()) {
                    assert_eq!(places.len(), blocks);
                    assert!(places.iter().all(|&place| (place as usize) < motifs));
                }
            }
        });
    }
}

#[test]
fn prefix_codes_survive() {
    fuzz(3, |random| {
        let motifs = 1 + random.below(300);
        let mut counts: Vec<u64> = (0..motifs).map(|_| 1 + random.next() % 50).collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let code = PrefixCode::from_length_counts(&length_counts(&code_lengths(&counts))).unwrap();
        let blocks = random.below(2000);
        let indices = numbers(random, motifs, blocks);
        let stream = indices::encode(&indices, &code, &Monitor::new()).unwrap();
        for _ in 0..8 {
            let (mutated, blocks) = (random.mutate(&stream), announced(random, blocks));
            if let Ok(indices) = indices::decode(&mutated, blocks, &code, &Monitor::new()) {
                assert!(indices.iter().all(|&index| (index as usize) < motifs));
            }
        }
        let lengths: Vec<u64> = (0..random.below(60)).map(|_| random.next() % 5).collect();
        let _ = PrefixCode::from_length_counts(&lengths);
    });
}

#[test]
fn motifs_survive() {
    fuzz(4, |random| {
        let motifs = random.below(400);
        let table = table(random, motifs);
        let order = table::sorted_order(&table, 2, FloatType::F32, &vec![1; motifs]).unwrap();
        let rows: Vec<u8> = order
            .iter()
            .flat_map(|&row| &table[row as usize * 8..][..8])
            .copied()
            .collect();
        let step = (random.below(2) == 0).then_some(1.0 / 16.0);
        let stream =
            coder::encode(&rows, 2, FloatType::F32, motifs, step, &Monitor::new()).unwrap();
        for _ in 0..8 {
            let (mutated, motifs) = (random.mutate(&stream), announced(random, motifs));
            let float = [FloatType::F32, FloatType::F16, FloatType::F64][random.below(3)];
            let decoded = coder::decode(&mutated, 2, float, motifs, &Monitor::new());
            if let Ok(table) = decoded {
                // Whatever was decoded has a tree.
                let tree = MotifTree::new(&table, 2, float).unwrap();
                let stream = [3, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7];
                let _ = paths::decode(&stream, 5, &tree, &Monitor::new());
            }
        }
    });
}

#[test]
fn floats_survive() {
    fuzz(5, |random| {
        let size = 1 << random.below(4);
        let elements = random.below(500);
        let data: Vec<u8> = (0..elements * size)
            .map(|_| random.next() as u8 & 0x3f)
            .collect();
        let (modelled, rest) = floats::encode(&data, size, &Monitor::new()).unwrap();
        for _ in 0..8 {
            let (mutated, elements) = (random.mutate(&modelled), announced(random, elements));
            let rest = if random.below(2) == 0 {
                rest.clone()
            } else {
                random.mutate(&rest)
            };
            let decoded: Result<Vec<u8>, Error> =
                floats::decode(&mutated, &rest, elements, size, &Monitor::new());
            if let Ok(data) = decoded {
                assert_eq!(data.len(), elements * size);
            }
        }
    });
}

#[test]
fn fields_survive() {
    fuzz(7, |random| {
        let size = 1 << random.below(4);
        // Many symbols have more states than few.
        let elements = if random.below(4) == 0 {
            4096 + random.below(5000)
        } else {
            random.below(500)
        };
        let mask = [0x00, 0x18, 0x3f, 0xff][random.below(4)];
        let data: Vec<u8> = (0..elements * size)
            .map(|_| (random.next() as u8 & random.next() as u8) & mask)
            .collect();
        let kind = [Kind::Float, Kind::Integer][random.below(2)];
        let stream = fields::encode(&data, size, kind, &Monitor::new()).unwrap();
        for _ in 0..8 {
            let (mutated, elements) = (random.mutate(&stream), announced(random, elements));
            let results = Available::all().iter().map(|&isa| {
                let mut out = vec![0; elements * size];
                let result = fields::decode(isa, &mutated, size, &mut out, &Monitor::new());
                result.map(|()| out).map_err(|error| error.kind())
            });
            let results: Vec<_> = results.collect();
            assert!(results.iter().all(|result| *result == results[0]));
        }
    });
}

#[test]
fn grids_survive() {
    fuzz(6, |random| {
        let (rows, columns) = (1 + random.below(40), 1 + random.below(40));
        let elements = rows * columns;
        let values: Vec<f64> = (0..elements)
            .map(|_| (random.below(2001) as f64 - 1000.0) / 300.0)
            .collect();
        let lags = (0..random.below(4))
            .map(|_| 1 + random.below(rows))
            .collect();
        let options = grid::Options {
            geometry: Geometry {
                elements,
                columns,
                transposed: random.below(2) == 0,
                within: random.below(2) == 0,
                lags,
                period: 1 + random.below(4),
            },
            state_bits: [0, 2, 6, 8][random.below(4)],
            step: [1e-3, 0.1, 2.0][random.below(3)],
            economy: 1.0,
            own_steps: true,
        };
        let monitor = Monitor::new();
        let multiples =
            grid::quantise(&values, None, &Importance::default(), &options, &monitor).unwrap();
        let stream = grid::encode(&multiples, &monitor).unwrap();
        for _ in 0..8 {
            let (mutated, elements) = (random.mutate(&stream), announced(random, elements));
            if let Ok(decoded) = grid::decode(&mutated, elements, &monitor) {
                let size = FloatType::F16.size();
                assert_eq!(decoded.to_bytes(FloatType::F16).len(), elements * size);
            }
        }
    });
}
