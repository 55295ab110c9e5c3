//! Whether kernels are compiled with the instructions they are meant to use.

use momos_core::Monitor;
use momos_core::motifs::lloyd;
use momos_core::nearest::{Isa, Kernel, Options, nearest_motifs_with};
use object::{Object, ObjectSymbol};

/// A vector operation that is not inlined was called by something that is compiled without its
/// instructions: a closure or a function that should be `#[inline(always)]`. Answers stay right,
/// but a search may take a quarter longer.
#[test]
fn no_vector_operation_is_a_call() {
    // So that the kernels and the sums of clusters are part of this program.
    let values: Vec<f32> = (0..256u16).map(|number| f32::from(number % 37)).collect();
    for kernel in Kernel::ALL {
        for isa in Isa::ALL {
            let options = Options {
                kernel: Some(kernel),
                isa: Some(isa),
            };
            let monitor = Monitor::new();
            // Not every processor has all instruction sets.
            let _ = nearest_motifs_with(&values, &values[..64], 4, options, &monitor);
        }
    }
    lloyd(&values, &values[..64], 4, 1, false, &Monitor::new()).unwrap();

    let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let program = object::File::parse(&*program).unwrap();
    let names: Vec<&str> = program
        .symbols()
        .chain(program.dynamic_symbols())
        .filter_map(|symbol| symbol.name().ok())
        .collect();
    assert!(
        names.iter().any(|name| name.contains("momos_core")),
        "this program has no symbols to look at"
    );
    // What detects instruction sets may be called.
    let called: Vec<&&str> = names
        .iter()
        .filter(|name| name.contains("core_arch") && !name.contains("xgetbv"))
        .filter(|name| !name.contains("cpuid"))
        .collect();
    assert!(called.is_empty(), "not inlined: {called:#?}");
}
