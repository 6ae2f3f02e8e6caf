//! All targets in one program, for CI, where each of them linked for itself would take too
//! long: FUZZ_TARGET says which.
#![no_main]

use std::sync::LazyLock;

static TARGET: LazyLock<String> =
    LazyLock::new(|| std::env::var("FUZZ_TARGET").expect("FUZZ_TARGET=<name of a target>"));

oci_coredump_fuzz::target!(&TARGET);
