//! Which motif is nearest to each block, exactly.
