//! Which `k` motifs represent the blocks: selection and Lloyd refinement.
