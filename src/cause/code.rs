//! The words of causes, for machines: what each means, and what to do about it. Pure.

use serde::{Deserialize, Serialize};

/// Declares [`CauseCode`]: name, text, meaning, and what to do about it.
macro_rules! words {
    ($($name:ident $text:literal $meaning:literal => $remedy:literal;)*) => {
        /// A cause in one word, for machines: `rlimit-core`. Words stay as they are.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[cfg_attr(test, derive(schemars::JsonSchema))]
        pub(crate) enum CauseCode {
            $(#[doc = $meaning] #[serde(rename = $text)] $name,)*
            /// A word of another version of this program.
            #[serde(rename = "other", other)]
            Other,
        }

        impl CauseCode {
            /// All words that this version gives, each with its meaning and its remedy.
            #[cfg(test)]
            const ALL: &[(CauseCode, &str, &str)] = &[$((CauseCode::$name, $meaning, $remedy),)*];

            /// The word itself, of lower-case letters and hyphens.
            pub(crate) fn as_str(self) -> &'static str {
                match self {
                    $(CauseCode::$name => $text,)*
                    CauseCode::Other => "other",
                }
            }
        }
    };
}

words! {
    Refused "refused" "the container's registration is damaged, or has no pattern"
        => "make the container anew; `reason` says what is wrong";
    DumpMode "dump-mode" "dump mode 2, and the container's root cannot have the core"
        => "`reason` says why; [limitations.md](limitations.md) has all conditions";
    SetUserId "set-user-id" "a process with more rights than its user has"
        => "`sysctl fs.suid_dumpable=2`, and a pattern that is an absolute path";
    RlimitCore "rlimit-core" "RLIMIT_CORE of the process"
        => "a higher `oci-coredump/limit`, `ulimit -c` or `--ulimit core` of the engine";
    RlimitFsize "rlimit-fsize" "RLIMIT_FSIZE of the process"
        => "a higher RLIMIT_FSIZE: `ulimit -f`";
    Rate "rate" "`[limits] rate`"
        => "a higher `rate`, or find out why so many crash";
    Cores "cores" "`[limits] cores`"
        => "a higher `cores`, or another `keep`";
    Keep "keep" "an older core could not be removed for this one"
        => "remove old cores, or let the crashed process's user do so";
    Bytes "bytes" "`[limits] bytes`"
        => "a higher `bytes`, or `oci-coredump/compress: zstd`";
    Concurrent "concurrent" "`[limits] concurrent`, after `wait`"
        => "a higher `concurrent` or `wait`";
    HostConcurrent "host-concurrent" "`[limits] host_concurrent`, after `wait`"
        => "a higher `host_concurrent`";
    MinFree "min-free" "`[limits] min_free`: bytes or inodes of the file system"
        => "free space on that file system, or a lower `min_free`";
    MinMemory "min-memory" "`[limits] min_memory`: memory of the host"
        => "more free memory, or a lower `min_memory`";
    Stall "stall" "`[limits] stall`: the target accepted no data"
        => "look at the target (NFS, FUSE), or set a longer `stall`";
    DirectoryMissing "directory-missing" "the pattern's directory does not exist"
        => "mount a volume there, or set `make_directories = \"anywhere\"`";
    NamesDirectory "names-directory" "the path is a directory's"
        => "add a file name to the pattern: `/cores/core`";
    Permission "permission" "the crashed process may not make the file"
        => "let the process's user write the directory: `chmod 1777`, or `fsGroup` of the pod";
    ReadOnly "read-only" "the file system is mounted read-only"
        => "mount a volume that can be written at the pattern's directory";
    Exists "exists"
        "a file has the core's name, and `existing` is `keep`, or `number` and 1,024 have one"
        => "`%t`, `%p` or `%h` in the pattern, or remove the file";
    Share "share" "a bound by the size of the file system (StarlingX's keys)"
        => "a larger `core_max_size` or `core_max_used`, a lower `core_min_free`, or free space";
    Selinux "selinux" "SELinux forbids the file, or its label cannot be given"
        => "the audit log has the denial: allow it, or label the volume (`:Z`)";
    Apparmor "apparmor" "the process's AppArmor profile could not be taken on"
        => "see `reason`; the profile must be loaded";
    Target "target" "the file cannot be made, for another reason"
        => "`reason` has the error of the system call";
    Unfit "unfit" "the file was made, but not as the kernel would accept it"
        => "remove what has the core's name: it must be made anew, as a regular file";
    NoSpace "no-space" "no space on the device (ENOSPC)"
        => "free space or inodes, or a larger volume";
    Quota "quota" "a disk quota (EDQUOT)"
        => "a higher quota of the crashed process's user";
    Write "write" "another error of a write"
        => "`reason` has the error: look at the disk or the server";
    Read "read" "the kernel's pipe, or the process's memory, could not be read"
        => "see `reason`; if it comes again, report it";
    Killed "killed" "the process was killed or frozen while it dumped"
        => "let it end: a longer time to stop, such as `podman stop --time 60`";
    WriterKilled "writer-killed" "the writer was killed, for one by the container's memory limit"
        => "a higher memory limit, or a volume that is not memory";
    WriterHangs "writer-hangs" "the writer hangs in the target"
        => "look at the target (NFS, FUSE)";
    WriterStopped "writer-stopped" "a user of the container stopped the writer"
        => "find out who sends SIGSTOP";
    Credentials "credentials" "the process's credentials, root or namespaces could not be taken on"
        => "see `reason`";
    Failed "failed" "another failure of the dispatcher"
        => "see `reason`; if it comes again, report it";
}

#[cfg(test)]
mod tests {
    use super::*;

    /// docs/records.md has every word, in this order, with its meaning and its remedy.
    #[test]
    fn every_word_is_documented() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/records.md");
        let text = std::fs::read_to_string(path).unwrap();
        let table = text.split("## Causes").nth(1).unwrap().split("\n## ").next().unwrap();
        let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| `")).collect();
        let all: Vec<String> = CauseCode::ALL
            .iter()
            .map(|(word, meaning, remedy)| {
                format!("| `{}` | {meaning} | {remedy} |", word.as_str())
            })
            .collect();
        assert_eq!(rows, all, "expected:\n{}", all.join("\n"));
    }

    #[test]
    fn words_are_what_serde_writes() {
        for (word, ..) in CauseCode::ALL {
            let text = serde_json::to_string(word).unwrap();
            assert_eq!(text, format!("{:?}", word.as_str()));
            assert!(word.as_str().bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{text}");
            assert_eq!(serde_json::from_str::<CauseCode>(&text).unwrap(), *word);
        }
        assert_eq!(
            serde_json::from_str::<CauseCode>("\"of-a-newer-version\"").unwrap(),
            CauseCode::Other
        );
    }
}
