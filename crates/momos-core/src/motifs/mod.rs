//! Which `k` motifs represent the blocks: selection and Lloyd refinement, and how
//! many blocks differ.

mod aligned;
mod clusters;
mod distinct;
mod lloyd;
mod means;
mod random;
pub mod repeats;
mod select;
mod sums;
mod weighted_draw;

pub use clusters::Clusters;
pub use distinct::{Distinct, DistinctBlocks, distinct};
pub use lloyd::{Refined, lloyd};
pub use random::SplitMix64;
pub use select::select;
pub use weighted_draw::WeightedDraw;
