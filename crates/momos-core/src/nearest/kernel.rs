//! What every kernel is: a name, and a search of motifs laid out for it.

use super::problem::Problem;
use crate::element::Element;
use crate::error::Result;
use crate::monitor::Monitor;
use crate::simd::Isa;

/// Motifs laid out for a kernel.
pub trait Search<T: Element>: Send + Sync {
    /// Finds the nearest motif of every block.
    ///
    /// # Errors
    /// `Interrupted`, if cancelled.
    fn search(
        &self,
        problem: &Problem<'_, T>,
        isa: Isa,
        monitor: &Monitor,
        nearest: &mut [u32],
    ) -> Result<()>;
}

/// A way to search. All give the same answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kernel {
    /// Every block against every motif, in float32.
    Brute,
    /// Every block against every motif of similar norm, in 8-bit integers; blocks of up to 1,024
    /// values.
    Narrow,
    /// Sixteen neighbouring blocks walk a k-d tree together; blocks of up to 8 values.
    GroupTree,
    /// Every block walks a k-d tree on its own, in integers; blocks of 4 to 8 values.
    BlockTree,
}

impl Kernel {
    /// Every kernel.
    pub const ALL: [Self; 4] = [Self::Brute, Self::Narrow, Self::GroupTree, Self::BlockTree];

    /// Its name in messages and plans.
    pub fn name(self) -> &'static str {
        match self {
            Self::Brute => "brute",
            Self::Narrow => "narrow",
            Self::GroupTree => "group-tree",
            Self::BlockTree => "block-tree",
        }
    }
}

/// What a search will run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How it searches.
    pub kernel: Kernel,
    /// With which instructions.
    pub isa: Isa,
}
