//! Constants of the cost model, in nanoseconds of one core; `benches/fit_search_costs.py` writes
//! them.

use super::cost::{Costs, Linear, Walk};

pub const AVX512_VNNI: Costs = Costs {
    brute: Linear {
        block: 25.0,
        value: 4.0,
        pair: 0.035,
        product: 0.0175,
        motif: 30.0,
        coordinate: 4.0,
    },
    narrow: Linear {
        block: 200.0,
        value: 4.0,
        pair: 0.03,
        product: 0.003,
        motif: 60.0,
        coordinate: 4.0,
    },
    group_tree: [
        Walk {
            block: 20.0,
            factor: 10.0,
            power: 0.05,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 8.0,
            power: 0.14,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 16.0,
            power: 0.18,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 30.0,
            power: 0.15,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 10.0,
            power: 0.37,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 9.5,
            power: 0.45,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 5.9,
            power: 0.55,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 4.5,
            power: 0.66,
            motif: 15.0,
        },
    ],
    block_tree: [
        Walk {
            block: 20.0,
            factor: 30.0,
            power: 0.15,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 30.0,
            power: 0.15,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 30.0,
            power: 0.15,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 30.0,
            power: 0.15,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 60.0,
            power: 0.2,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 80.0,
            power: 0.22,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 100.0,
            power: 0.24,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 130.0,
            power: 0.23,
            motif: 15.0,
        },
    ],
};

pub const AVX512: Costs = Costs {
    brute: Linear {
        block: 25.0,
        value: 4.0,
        pair: 0.035,
        product: 0.0175,
        motif: 30.0,
        coordinate: 4.0,
    },
    narrow: Linear {
        block: 200.0,
        value: 4.0,
        pair: 0.03,
        product: 0.003,
        motif: 60.0,
        coordinate: 4.0,
    },
    group_tree: [
        Walk {
            block: 20.0,
            factor: 10.0,
            power: 0.05,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 8.0,
            power: 0.14,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 16.0,
            power: 0.18,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 30.0,
            power: 0.15,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 10.0,
            power: 0.37,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 9.5,
            power: 0.45,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 5.9,
            power: 0.55,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 4.5,
            power: 0.66,
            motif: 15.0,
        },
    ],
    block_tree: [
        Walk {
            block: 20.0,
            factor: 30.0,
            power: 0.15,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 30.0,
            power: 0.15,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 30.0,
            power: 0.15,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 30.0,
            power: 0.15,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 60.0,
            power: 0.2,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 80.0,
            power: 0.22,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 100.0,
            power: 0.24,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 130.0,
            power: 0.23,
            motif: 15.0,
        },
    ],
};

pub const AVX2: Costs = Costs {
    brute: Linear {
        block: 25.0,
        value: 4.0,
        pair: 0.035,
        product: 0.0175,
        motif: 30.0,
        coordinate: 4.0,
    },
    narrow: Linear {
        block: 200.0,
        value: 4.0,
        pair: 0.03,
        product: 0.003,
        motif: 60.0,
        coordinate: 4.0,
    },
    group_tree: [
        Walk {
            block: 20.0,
            factor: 10.0,
            power: 0.05,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 8.0,
            power: 0.14,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 16.0,
            power: 0.18,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 30.0,
            power: 0.15,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 10.0,
            power: 0.37,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 9.5,
            power: 0.45,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 5.9,
            power: 0.55,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 4.5,
            power: 0.66,
            motif: 15.0,
        },
    ],
    block_tree: [
        Walk {
            block: 20.0,
            factor: 30.0,
            power: 0.15,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 30.0,
            power: 0.15,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 30.0,
            power: 0.15,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 30.0,
            power: 0.15,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 60.0,
            power: 0.2,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 80.0,
            power: 0.22,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 100.0,
            power: 0.24,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 130.0,
            power: 0.23,
            motif: 15.0,
        },
    ],
};

pub const PORTABLE: Costs = Costs {
    brute: Linear {
        block: 25.0,
        value: 4.0,
        pair: 0.035,
        product: 0.0175,
        motif: 30.0,
        coordinate: 4.0,
    },
    narrow: Linear {
        block: 200.0,
        value: 4.0,
        pair: 0.03,
        product: 0.003,
        motif: 60.0,
        coordinate: 4.0,
    },
    group_tree: [
        Walk {
            block: 20.0,
            factor: 10.0,
            power: 0.05,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 8.0,
            power: 0.14,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 16.0,
            power: 0.18,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 30.0,
            power: 0.15,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 10.0,
            power: 0.37,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 9.5,
            power: 0.45,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 5.9,
            power: 0.55,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 4.5,
            power: 0.66,
            motif: 15.0,
        },
    ],
    block_tree: [
        Walk {
            block: 20.0,
            factor: 30.0,
            power: 0.15,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 30.0,
            power: 0.15,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 30.0,
            power: 0.15,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 30.0,
            power: 0.15,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 60.0,
            power: 0.2,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 80.0,
            power: 0.22,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 100.0,
            power: 0.24,
            motif: 15.0,
        },
        Walk {
            block: 20.0,
            factor: 130.0,
            power: 0.23,
            motif: 15.0,
        },
    ],
};
