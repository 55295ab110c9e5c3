//! Constants of the cost model, in nanoseconds of one core of a Zen 4 processor;
//! `benches/fit_search_costs.py` measures and writes them.

use super::cost::{Costs, Linear, Walk};

pub const AVX512_VNNI: Costs = Costs {
    brute: Linear {
        block: 42.8,
        value: 3.04,
        pair: 0.0323,
        product: 0.016,
        motif: 82.4,
        coordinate: 4.85,
    },
    narrow: Linear {
        block: 45.7,
        value: 6.32,
        pair: 0.0,
        product: 0.00524,
        motif: 47.6,
        coordinate: 20.0,
    },
    group_tree: [
        Walk {
            block: 20.0,
            factor: 3.61,
            power: 0.156,
            motif: 10.0,
        },
        Walk {
            block: 20.0,
            factor: 5.47,
            power: 0.194,
            motif: 10.0,
        },
        Walk {
            block: 20.0,
            factor: 11.0,
            power: 0.198,
            motif: 10.0,
        },
        Walk {
            block: 20.0,
            factor: 30.0,
            power: 0.15,
            motif: 14.0,
        },
        Walk {
            block: 20.0,
            factor: 7.78,
            power: 0.404,
            motif: 14.0,
        },
        Walk {
            block: 20.0,
            factor: 5.28,
            power: 0.513,
            motif: 14.0,
        },
        Walk {
            block: 20.0,
            factor: 3.84,
            power: 0.606,
            motif: 14.0,
        },
        Walk {
            block: 20.0,
            factor: 3.27,
            power: 0.661,
            motif: 14.0,
        },
    ],
    block_tree: [
        Walk {
            block: 20.0,
            factor: 43.2,
            power: 0.18,
            motif: 14.0,
        },
        Walk {
            block: 20.0,
            factor: 58.5,
            power: 0.2,
            motif: 14.0,
        },
        Walk {
            block: 20.0,
            factor: 70.8,
            power: 0.21,
            motif: 14.0,
        },
        Walk {
            block: 20.0,
            factor: 106.0,
            power: 0.22,
            motif: 14.0,
        },
        Walk {
            block: 20.0,
            factor: 142.0,
            power: 0.22,
            motif: 14.0,
        },
    ],
};

pub const AVX512: Costs = Costs {
    brute: Linear {
        block: 42.8,
        value: 3.04,
        pair: 0.0323,
        product: 0.016,
        motif: 82.4,
        coordinate: 4.85,
    },
    narrow: Linear {
        block: 45.7,
        value: 6.32,
        pair: 0.0,
        product: 0.00865,
        motif: 47.6,
        coordinate: 20.0,
    },
    group_tree: [
        Walk {
            block: 20.0,
            factor: 3.61,
            power: 0.156,
            motif: 10.0,
        },
        Walk {
            block: 20.0,
            factor: 5.47,
            power: 0.194,
            motif: 10.0,
        },
        Walk {
            block: 20.0,
            factor: 11.0,
            power: 0.198,
            motif: 10.0,
        },
        Walk {
            block: 20.0,
            factor: 30.0,
            power: 0.15,
            motif: 14.0,
        },
        Walk {
            block: 20.0,
            factor: 7.78,
            power: 0.404,
            motif: 14.0,
        },
        Walk {
            block: 20.0,
            factor: 5.28,
            power: 0.513,
            motif: 14.0,
        },
        Walk {
            block: 20.0,
            factor: 3.84,
            power: 0.606,
            motif: 14.0,
        },
        Walk {
            block: 20.0,
            factor: 3.27,
            power: 0.661,
            motif: 14.0,
        },
    ],
    block_tree: [
        Walk {
            block: 20.0,
            factor: 47.6,
            power: 0.18,
            motif: 14.0,
        },
        Walk {
            block: 20.0,
            factor: 64.4,
            power: 0.2,
            motif: 14.0,
        },
        Walk {
            block: 20.0,
            factor: 77.8,
            power: 0.21,
            motif: 14.0,
        },
        Walk {
            block: 20.0,
            factor: 116.0,
            power: 0.22,
            motif: 14.0,
        },
        Walk {
            block: 20.0,
            factor: 157.0,
            power: 0.22,
            motif: 14.0,
        },
    ],
};

pub const AVX2: Costs = Costs {
    brute: Linear {
        block: 42.8,
        value: 3.04,
        pair: 0.0323,
        product: 0.016,
        motif: 82.4,
        coordinate: 4.85,
    },
    narrow: Linear {
        block: 45.7,
        value: 6.32,
        pair: 0.0,
        product: 0.00944,
        motif: 47.6,
        coordinate: 20.0,
    },
    group_tree: [
        Walk {
            block: 20.0,
            factor: 3.83,
            power: 0.156,
            motif: 10.0,
        },
        Walk {
            block: 20.0,
            factor: 6.13,
            power: 0.194,
            motif: 10.0,
        },
        Walk {
            block: 20.0,
            factor: 13.0,
            power: 0.198,
            motif: 10.0,
        },
        Walk {
            block: 20.0,
            factor: 37.2,
            power: 0.15,
            motif: 14.0,
        },
        Walk {
            block: 20.0,
            factor: 10.1,
            power: 0.404,
            motif: 14.0,
        },
        Walk {
            block: 20.0,
            factor: 7.18,
            power: 0.513,
            motif: 14.0,
        },
        Walk {
            block: 20.0,
            factor: 5.46,
            power: 0.606,
            motif: 14.0,
        },
        Walk {
            block: 20.0,
            factor: 4.84,
            power: 0.661,
            motif: 14.0,
        },
    ],
    block_tree: [
        Walk {
            block: 20.0,
            factor: 73.5,
            power: 0.18,
            motif: 14.0,
        },
        Walk {
            block: 20.0,
            factor: 99.5,
            power: 0.2,
            motif: 14.0,
        },
        Walk {
            block: 20.0,
            factor: 120.0,
            power: 0.21,
            motif: 14.0,
        },
        Walk {
            block: 20.0,
            factor: 180.0,
            power: 0.22,
            motif: 14.0,
        },
        Walk {
            block: 20.0,
            factor: 242.0,
            power: 0.22,
            motif: 14.0,
        },
    ],
};

pub const PORTABLE: Costs = Costs {
    brute: Linear {
        block: 42.8,
        value: 3.04,
        pair: 0.0873,
        product: 0.0431,
        motif: 82.4,
        coordinate: 4.85,
    },
    narrow: Linear {
        block: 45.7,
        value: 6.32,
        pair: 0.0,
        product: 0.157,
        motif: 47.6,
        coordinate: 20.0,
    },
    group_tree: [
        Walk {
            block: 20.0,
            factor: 9.39,
            power: 0.156,
            motif: 10.0,
        },
        Walk {
            block: 20.0,
            factor: 14.2,
            power: 0.194,
            motif: 10.0,
        },
        Walk {
            block: 20.0,
            factor: 28.7,
            power: 0.198,
            motif: 10.0,
        },
        Walk {
            block: 20.0,
            factor: 78.0,
            power: 0.15,
            motif: 14.0,
        },
        Walk {
            block: 20.0,
            factor: 20.2,
            power: 0.404,
            motif: 14.0,
        },
        Walk {
            block: 20.0,
            factor: 13.7,
            power: 0.513,
            motif: 14.0,
        },
        Walk {
            block: 20.0,
            factor: 9.99,
            power: 0.606,
            motif: 14.0,
        },
        Walk {
            block: 20.0,
            factor: 8.51,
            power: 0.661,
            motif: 14.0,
        },
    ],
    block_tree: [
        Walk {
            block: 20.0,
            factor: 173.0,
            power: 0.18,
            motif: 14.0,
        },
        Walk {
            block: 20.0,
            factor: 234.0,
            power: 0.2,
            motif: 14.0,
        },
        Walk {
            block: 20.0,
            factor: 283.0,
            power: 0.21,
            motif: 14.0,
        },
        Walk {
            block: 20.0,
            factor: 423.0,
            power: 0.22,
            motif: 14.0,
        },
        Walk {
            block: 20.0,
            factor: 570.0,
            power: 0.22,
            motif: 14.0,
        },
    ],
};
