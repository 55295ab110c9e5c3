//! Instruction sets, and which of them this processor has.

use std::sync::LazyLock;

/// An instruction set the kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// x86-64 with AVX-512F, BW and VNNI.
    Avx512Vnni,
    /// x86-64 with AVX-512F and BW.
    Avx512,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// aarch64 with dot products of bytes (Armv8.4, and most of Armv8.2).
    NeonDot,
    /// aarch64.
    Neon,
    /// Whatever the compiler's target has.
    Portable,
}

impl Isa {
    /// Every instruction set, best first.
    pub const ALL: [Self; 6] = [
        Self::Avx512Vnni,
        Self::Avx512,
        Self::Avx2,
        Self::NeonDot,
        Self::Neon,
        Self::Portable,
    ];

    /// Whether this processor has it.
    pub fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => {
                Self::Avx512.is_available() && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                Self::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("bmi1")
                    && is_x86_feature_detected!("bmi2")
            }
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx512Vnni | Self::Avx512 | Self::Avx2 => false,
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot => {
                Self::Neon.is_available() && std::arch::is_aarch64_feature_detected!("dotprod")
            }
            #[cfg(target_arch = "aarch64")]
            Self::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            #[cfg(not(target_arch = "aarch64"))]
            Self::NeonDot | Self::Neon => false,
            Self::Portable => true,
        }
    }

    /// The best instruction set of this processor.
    pub fn best() -> Self {
        Available::best().isa()
    }

    /// Its name in messages and plans: `avx512-vnni`, `avx512`, `avx2`, `neon-dot`, `neon` or
    /// `portable`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Avx512Vnni => "avx512-vnni",
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::NeonDot => "neon-dot",
            Self::Neon => "neon",
            Self::Portable => "portable",
        }
    }
}

/// An instruction set that this processor has: the proof that its instructions may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Available(Isa);

impl Available {
    /// What every processor has.
    pub const PORTABLE: Self = Self(Isa::Portable);

    /// Every instruction set of this processor, best first.
    pub fn all() -> &'static [Self] {
        static ALL: LazyLock<Vec<Available>> =
            LazyLock::new(|| Isa::ALL.into_iter().filter_map(Available::new).collect());
        &ALL
    }

    /// The best one.
    pub fn best() -> Self {
        Self::all().first().copied().unwrap_or(Self::PORTABLE)
    }

    /// The given one, if this processor has it.
    pub fn new(isa: Isa) -> Option<Self> {
        isa.is_available().then_some(Self(isa))
    }

    /// Which one it is.
    #[inline]
    pub fn isa(self) -> Isa {
        self.0
    }
}
