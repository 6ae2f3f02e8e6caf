//! Row 19, where AppArmor is in SELinux's place: a core is made only where the crasher's profile (`profiles`) lets it. The oracle is the kernel's own file mode.
use std::fs;

use crate::machine::CONFINED;
use crate::scene;
use crate::stage::{self, DUMPED, run, run_with_the_kernels};

#[test]
fn row_19_no_core_where_the_profile_forbids_it() {
    CONFINED.run(|| {
        let host = scene::host();
        fs::write("/sys/kernel/security/apparmor/.replace", fs::read("/profiles").unwrap()).unwrap();
        for (profile, name, forbidden) in [
            ("container", "core", false),
            ("container", "secret", true),
            ("strict", "core", false),
            ("strict", "secret", true),
            ("complaining", "secret", false),
        ] {
            let (id, pattern) = (&format!("{profile}-{name}"), &format!("/dump/{name}"));
            let (mut bundle, volume) = stage::bundle(pattern, &["/bin/crasher", "null"]);
            bundle.config["process"]["apparmorProfile"] = profile.into();
            let core = volume.path().join(format!("{name}.100"));
            // With something that has the name, and without.
            for old in [Some(b"old".to_vec()), None] {
                let prepare = || old.as_ref().map_or_else(|| drop(fs::remove_file(&core)), |old| fs::write(&core, old).unwrap());
                let touched = || fs::read(&core).ok() != old;
                prepare();
                let status = run(&bundle, id);
                let record = host.records_of(id).pop().unwrap();
                assert_eq!(touched(), !forbidden, "{status:#x} {record:#}");
                assert_eq!(record["outcome"], if forbidden { "none" } else { "written" }, "{record:#}");
                assert_eq!(record["reason"].as_str().is_some_and(|r| r.contains("Permission denied")), forbidden, "{record:#}");
                prepare();
                let status = run_with_the_kernels(&host, &mut bundle, pattern, id);
                assert_eq!((touched(), status == DUMPED), (!forbidden, !forbidden), "{id}: the kernel's own file mode");
            }
        }
    });
}
