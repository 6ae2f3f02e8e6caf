//! Row 19, where AppArmor is in SELinux's place: a core is made only where the crasher's profile
//! (`profiles`) lets it. The oracle is the kernel's own file mode.
use std::fs;

use crate::machine::CONFINED;
use crate::stage::{self, DUMPED, run, run_with_the_kernels};
use support::scene;

#[test]
fn row_19_no_core_where_the_profile_forbids_it() {
    CONFINED.run(|| {
        let host = scene::host();
        fs::write("/sys/kernel/security/apparmor/.replace", fs::read("/profiles").unwrap())
            .unwrap();
        for (profile, name, uid, forbidden) in [
            ("container", "core", 0, false),
            ("container", "secret", 0, true),
            ("container", "core", 1000, false),
            ("container", "secret", 1000, true),
            ("strict", "core", 0, false),
            ("strict", "secret", 0, true),
            ("complaining", "secret", 0, false),
        ] {
            let (id, pattern) = (&format!("{profile}-{name}-{uid}"), &format!("/dump/{name}"));
            let (mut bundle, volume) = stage::bundle(pattern, &[]);
            bundle.args(&[
                "/bin/parent",
                "--pid",
                "100",
                "--core",
                "unlimited",
                "--uid",
                &uid.to_string(),
                "--",
                "/bin/crasher",
                "null",
            ]);
            bundle.config["process"]["apparmorProfile"] = profile.into();
            let core = volume.path().join(format!("{name}.100"));
            // With something that has the name, and without.
            for old in [Some(b"old".to_vec()), None] {
                let prepare = || {
                    let _ = fs::remove_file(&core);
                    if let Some(old) = &old {
                        fs::write(&core, old).unwrap();
                        std::os::unix::fs::chown(&core, Some(uid), None).unwrap();
                    }
                };
                let touched = || fs::read(&core).ok() != old;
                prepare();
                let status = run(&bundle, id);
                let record = host.records_of(id).pop().unwrap();
                assert_eq!(touched(), !forbidden, "{status:#x} {record:#}");
                assert_eq!(
                    record["outcome"],
                    if forbidden { "none" } else { "written" },
                    "{record:#}"
                );
                assert_eq!(
                    record["reason"].as_str().is_some_and(|r| r.contains("Permission denied")),
                    forbidden,
                    "{record:#}"
                );
                prepare();
                let status = run_with_the_kernels(&host, &mut bundle, pattern, id);
                assert_eq!(
                    (touched(), status == DUMPED),
                    (!forbidden, !forbidden),
                    "{id}: the kernel's own file mode"
                );
            }
        }
    });
}
