//! Decoding of interleaved asymmetric numeral systems (Duda, 2013), 32 states at a time.
//!
//! All states take a step, then those that fell below 2^16 take a word each, in order. That is how
//! vectors work, so that every instruction set reads the same stream (Giesen, 2014).

use super::isa::{Available, Isa};

/// States that are interleaved.
pub const STATES: usize = 32;

/// States stay at or above this.
pub const LEAST_STATE: u32 = 1 << 16;

/// What symbols are decoded with.
#[derive(Clone, Copy, Debug)]
pub struct Tables<'a> {
    /// For each class `2^bits` entries, one for every remainder of a state: the symbol, its
    /// frequency and the distance from its first remainder, `bits` bits each but for the symbol,
    /// which has the rest.
    pub entries: &'a [u32],
    /// Bits of a frequency, from 1 to 15.
    pub bits: u32,
}

/// Words, and how many of them have been taken.
#[derive(Clone, Copy, Debug)]
pub struct Words<'a> {
    /// All words, then at least [`STATES`] more that are never part of a valid stream.
    pub words: &'a [u16],
    /// Those taken.
    pub taken: usize,
}

/// Decodes runs of symbols; returns false if words ran out, the symbols being anything then.
///
/// Run after run has a class of its own; the runs are of equal length, a multiple of [`STATES`].
///
/// # Panics
/// If there is no table for a class, or the symbols cannot be cut into so many runs.
pub fn decode_runs(
    isa: Available,
    states: &mut [u32; STATES],
    tables: Tables<'_>,
    words: &mut Words<'_>,
    classes: &[u8],
    symbols: &mut [u16],
) -> bool {
    if classes.is_empty() {
        return true;
    }
    let run = symbols.len() / classes.len();
    assert!(
        run.is_multiple_of(STATES) && run * classes.len() == symbols.len(),
        "whole runs of whole steps"
    );
    let largest = classes.iter().copied().max().unwrap_or(0);
    assert!(
        (1..16).contains(&tables.bits)
            && (usize::from(largest) + 1) << tables.bits <= tables.entries.len(),
        "a table for each class"
    );
    match isa.isa() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the processor has AVX-512F; the assertions above are what the kernel asks for.
        Isa::Avx512Vnni | Isa::Avx512 => unsafe {
            x86::decode_avx512(states, tables, words, classes, symbols)
        },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the processor has AVX2; the assertions above are what the kernel asks for.
        Isa::Avx2 => unsafe { x86::decode_avx2(states, tables, words, classes, symbols) },
        #[cfg(not(target_arch = "x86_64"))]
        Isa::Avx512Vnni | Isa::Avx512 | Isa::Avx2 => {
            decode_portable(states, tables, words, classes, symbols)
        }
        Isa::NeonDot | Isa::Neon | Isa::Portable => {
            decode_portable(states, tables, words, classes, symbols)
        }
    }
}

fn decode_portable(
    states: &mut [u32; STATES],
    tables: Tables<'_>,
    words: &mut Words<'_>,
    classes: &[u8],
    symbols: &mut [u16],
) -> bool {
    let run = symbols.len() / classes.len();
    let size = 1usize << tables.bits;
    for (&class, symbols) in classes.iter().zip(symbols.chunks_exact_mut(run)) {
        let table = &tables.entries[usize::from(class) * size..][..size];
        for symbols in symbols.as_chunks_mut::<STATES>().0 {
            let Some(next) = words.words[words.taken..].first_chunk::<STATES>() else {
                return false;
            };
            words.taken += step(states, table, tables.bits, next, symbols);
        }
    }
    true
}

/// One step of at most [`STATES`] states; returns how many words were taken.
#[inline(always)]
pub fn step(
    states: &mut [u32],
    table: &[u32],
    bits: u32,
    words: &[u16; STATES],
    symbols: &mut [u16],
) -> usize {
    let mask = table.len() - 1;
    let mut taken = 0;
    for (state, symbol) in states.iter_mut().zip(symbols) {
        let entry = table[*state as usize & mask];
        let frequency = entry >> bits & mask as u32;
        *symbol = (entry >> (2 * bits)) as u16;
        // A table of a hostile stream has these bounds as well: the product stays below 2^32.
        let next = frequency * (*state >> bits) + (entry & mask as u32);
        // Without a branch, which nothing could predict.
        let low = u32::from(next < LEAST_STATE);
        let word = u32::from(words[taken % STATES]);
        *state = next << (16 * low) | word & low.wrapping_neg();
        taken += low as usize;
    }
    taken
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{STATES, Tables, Words};

    /// # Safety
    /// Every class has a table, and the symbols are whole runs of whole steps.
    #[target_feature(enable = "avx512f,avx512bw")]
    pub unsafe fn decode_avx512(
        states: &mut [u32; STATES],
        tables: Tables<'_>,
        words: &mut Words<'_>,
        classes: &[u8],
        symbols: &mut [u16],
    ) -> bool {
        let steps = symbols.len() / classes.len() / STATES;
        let shift = _mm_cvtsi32_si128(tables.bits as i32);
        let twice = _mm_cvtsi32_si128(2 * tables.bits as i32);
        let mask = _mm512_set1_epi32((1 << tables.bits) - 1);
        let least = _mm512_set1_epi32(super::LEAST_STATE as i32);
        // SAFETY: 16 states each; all later pointers stay within their slices: a remainder is below
        // 2^bits, there is a table for each class, 32 words are checked for before each step takes
        // at most as many, and `out` moves on by one step for each step of the symbols.
        unsafe {
            let mut x0 = _mm512_loadu_si512(states.as_ptr().cast());
            let mut x1 = _mm512_loadu_si512(states.as_ptr().add(16).cast());
            let mut out = symbols.as_mut_ptr();
            for &class in classes {
                let table = tables
                    .entries
                    .as_ptr()
                    .add(usize::from(class) << tables.bits);
                for _ in 0..steps {
                    if words.taken + STATES > words.words.len() {
                        return false;
                    }
                    let next = words.words.as_ptr().add(words.taken);
                    let e0 = _mm512_i32gather_epi32::<4>(_mm512_and_si512(x0, mask), table.cast());
                    let e1 = _mm512_i32gather_epi32::<4>(_mm512_and_si512(x1, mask), table.cast());
                    let f0 = _mm512_and_si512(_mm512_srl_epi32(e0, shift), mask);
                    let f1 = _mm512_and_si512(_mm512_srl_epi32(e1, shift), mask);
                    x0 = _mm512_add_epi32(
                        _mm512_mullo_epi32(f0, _mm512_srl_epi32(x0, shift)),
                        _mm512_and_si512(e0, mask),
                    );
                    x1 = _mm512_add_epi32(
                        _mm512_mullo_epi32(f1, _mm512_srl_epi32(x1, shift)),
                        _mm512_and_si512(e1, mask),
                    );
                    let low0 = _mm512_cmplt_epu32_mask(x0, least);
                    let low1 = _mm512_cmplt_epu32_mask(x1, least);
                    let count0 = low0.count_ones() as usize;
                    let w0 = _mm512_cvtepu16_epi32(_mm256_loadu_si256(next.cast()));
                    let w1 = _mm512_cvtepu16_epi32(_mm256_loadu_si256(next.add(count0).cast()));
                    x0 = _mm512_mask_or_epi32(
                        x0,
                        low0,
                        _mm512_slli_epi32::<16>(x0),
                        _mm512_maskz_expand_epi32(low0, w0),
                    );
                    x1 = _mm512_mask_or_epi32(
                        x1,
                        low1,
                        _mm512_slli_epi32::<16>(x1),
                        _mm512_maskz_expand_epi32(low1, w1),
                    );
                    words.taken += count0 + low1.count_ones() as usize;
                    let s0 = _mm512_cvtepi32_epi16(_mm512_srl_epi32(e0, twice));
                    let s1 = _mm512_cvtepi32_epi16(_mm512_srl_epi32(e1, twice));
                    _mm256_storeu_si256(out.cast(), s0);
                    _mm256_storeu_si256(out.add(16).cast(), s1);
                    out = out.add(STATES);
                }
            }
            _mm512_storeu_si512(states.as_mut_ptr().cast(), x0);
            _mm512_storeu_si512(states.as_mut_ptr().add(16).cast(), x1);
        }
        true
    }

    /// For each set of lanes, the number of the word that each of them takes.
    static PLACES: [[u8; 8]; 256] = {
        let mut places = [[0u8; 8]; 256];
        let mut set = 0;
        while set < 256 {
            let (mut lane, mut next) = (0, 0);
            while lane < 8 {
                places[set][lane] = next;
                if set >> lane & 1 == 1 {
                    next += 1;
                }
                lane += 1;
            }
            set += 1;
        }
        places
    };

    /// # Safety
    /// Every class has a table, and the symbols are whole runs of whole steps.
    #[target_feature(enable = "avx2,popcnt")]
    pub unsafe fn decode_avx2(
        states: &mut [u32; STATES],
        tables: Tables<'_>,
        words: &mut Words<'_>,
        classes: &[u8],
        symbols: &mut [u16],
    ) -> bool {
        let steps = symbols.len() / classes.len() / STATES;
        let shift = _mm_cvtsi32_si128(tables.bits as i32);
        let twice = _mm_cvtsi32_si128(2 * tables.bits as i32);
        let mask = _mm256_set1_epi32((1 << tables.bits) - 1);
        // SAFETY: as of `decode_avx512`, with eight states and words at a time.
        unsafe {
            let mut x: [__m256i; 4] =
                std::array::from_fn(|i| _mm256_loadu_si256(states.as_ptr().add(8 * i).cast()));
            let mut out = symbols.as_mut_ptr();
            for &class in classes {
                let table = tables
                    .entries
                    .as_ptr()
                    .add(usize::from(class) << tables.bits);
                for _ in 0..steps {
                    if words.taken + STATES > words.words.len() {
                        return false;
                    }
                    let mut next = words.words.as_ptr().add(words.taken);
                    let start = next;
                    let mut found = [_mm256_setzero_si256(); 4];
                    for (x, found) in x.iter_mut().zip(&mut found) {
                        let rest = _mm256_and_si256(*x, mask);
                        let entry = _mm256_i32gather_epi32::<4>(table.cast(), rest);
                        let frequency = _mm256_and_si256(_mm256_srl_epi32(entry, shift), mask);
                        *x = _mm256_add_epi32(
                            _mm256_mullo_epi32(frequency, _mm256_srl_epi32(*x, shift)),
                            _mm256_and_si256(entry, mask),
                        );
                        *found = _mm256_srl_epi32(entry, twice);
                    }
                    for x in &mut x {
                        let low =
                            _mm256_cmpeq_epi32(_mm256_srli_epi32::<16>(*x), _mm256_setzero_si256());
                        let set = _mm256_movemask_ps(_mm256_castsi256_ps(low)) as usize;
                        let word = _mm256_cvtepu16_epi32(_mm_loadu_si128(next.cast()));
                        let places =
                            _mm256_cvtepu8_epi32(_mm_loadl_epi64(PLACES[set].as_ptr().cast()));
                        let word = _mm256_permutevar8x32_epi32(word, places);
                        let wider = _mm256_or_si256(_mm256_slli_epi32::<16>(*x), word);
                        *x = _mm256_blendv_epi8(*x, wider, low);
                        next = next.add(set.count_ones() as usize);
                    }
                    words.taken += next.offset_from(start) as usize;
                    for pair in 0..2 {
                        let packed = _mm256_packus_epi32(found[2 * pair], found[2 * pair + 1]);
                        let packed = _mm256_permute4x64_epi64::<0b11_01_10_00>(packed);
                        _mm256_storeu_si256(out.add(16 * pair).cast(), packed);
                    }
                    out = out.add(STATES);
                }
            }
            for (i, x) in x.into_iter().enumerate() {
                _mm256_storeu_si256(states.as_mut_ptr().add(8 * i).cast(), x);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_set_decodes_the_same() {
        for bits in [10u32, 11, 12] {
            // Any words are a stream; two classes of tables that cover all remainders.
            let size = 1u32 << bits;
            let entries: Vec<u32> = [5u32, 37]
                .into_iter()
                .flat_map(|width| {
                    (0..size).map(move |rest| {
                        let first = rest / width * width;
                        let frequency = width.min(size - first);
                        (rest / width % 200) << (2 * bits) | frequency << bits | (rest - first)
                    })
                })
                .collect();
            let tables = Tables {
                entries: &entries,
                bits,
            };
            let words: Vec<u16> = (0..4000u32)
                .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u16)
                .collect();
            let classes = [0u8, 1, 1, 0, 1, 0];
            let run = |isa, words: &[u16]| {
                let mut states =
                    std::array::from_fn(|i| LEAST_STATE + (i as u32).wrapping_mul(0x9E37_79B9) / 2);
                let mut words = Words { words, taken: 3 };
                let mut symbols = [0u16; 6 * 96];
                let whole =
                    decode_runs(isa, &mut states, tables, &mut words, &classes, &mut symbols);
                (whole, whole.then_some((states, words.taken, symbols)))
            };
            for &isa in Available::all() {
                assert_eq!(run(isa, &words), run(Available::PORTABLE, &words));
                assert!(run(isa, &words).0);
                assert_eq!(run(isa, &words[..100]), (false, None));
            }
        }
    }
}
