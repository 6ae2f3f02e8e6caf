//! A kernel before 6.16 gives its helper no pidfd, and before 6.7 no list of the pages that exist:
//! who crashed is proven otherwise, and the core comes through the pipe.
use crate::machine::DEBIAN;
use crate::stage::{CORE, DUMPED, bundle, run, run_with_the_kernels, take};
use support::core_bytes::{describe, masked};
use support::scene::{self, only_record};

#[test]
fn cores_are_the_kernels_own() {
    DEBIAN.run(|| {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let version: Vec<u32> = release.split('.').take(2).map(|n| n.parse().unwrap()).collect();
        assert!(version < vec![6, 16], "{release}: this is no older kernel");
        let host = scene::host();
        for (id, program) in [
            ("tiny", &["/bin/crasher", "null"][..]),
            ("large", &["/bin/crasher", "--fill", "12", "--tail", "8", "null"]),
        ] {
            let (mut bundle, volume) = bundle("/dump/core", program);
            let core = volume.path().join(CORE);
            assert_eq!(run(&bundle, id), DUMPED, "{id}: {:#?}", host.records());
            let record = only_record(&host, id);
            assert_eq!(
                (record["outcome"].as_str(), record["size"].as_u64()),
                (Some("written"), core.metadata().ok().map(|m| m.len())),
                "{record:#}"
            );
            let (ours, blocks) = take(&core);
            assert_eq!(run_with_the_kernels(&host, &mut bundle, "/dump/core", id), DUMPED);
            let (kernels, most) = take(&core);
            assert_eq!(ours.len(), kernels.len(), "{id}");
            assert_eq!(id == "large", ours.len() > 8 << 20, "{id}: {} bytes", ours.len());
            let (one, two) = (masked(&kernels), masked(&ours));
            let differs = one.iter().zip(&two).position(|(a, b)| a != b);
            assert_eq!(differs.map(|at| describe(&one, at)), None, "{id}");
            assert!(blocks <= most, "{id}: {blocks} blocks, the kernel's has {most}");
        }
    });
}
