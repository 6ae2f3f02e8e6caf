//! One row of the table: how a container is made, how a process in it dies, and what the
//! kernel's pipe mode forces.
use support::bundle::Bundle;

/// A difference between the kernel's file mode and the project that a row is known to have. It is
/// asserted: a row where it goes away fails too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forced {
    /// None: all is the same.
    Nothing,
    /// No core is kept in either, but in pipe mode the kernel sets WCOREDUMP
    /// before anybody knows that.
    CoreFlag,
    /// The process gained privileges by its executable and fs.suid_dumpable lets it dump:
    /// the kernel's file mode keeps a core, the project never hands one to a container.
    /// The wait status says on both sides that a core was dumped.
    NoCoreOfPrivileged,
    /// Dump mode 2: the kernel resolves the pattern in the host's root, so its core is on the
    /// host; the project's is at the same path in the container.
    EscapesToHost,
    /// The file system gets full. The project stores no pages of zeros, so more of the core fits:
    /// the kernel's file is the beginning of the project's.
    MoreFits,
    /// To make the file takes a capability, and the kernel makes it as the crasher: the core itself
    /// says (PF_SUPERPRIV in `pr_flag` of NT_PRPSINFO) that the process used one. The project's
    /// child makes it, so that bit is not set.
    PrivilegeUsed,
    /// The hook refuses the template. The container starts without a pattern of its own, so the
    /// handler that was there before has the crash: `core` in the working directory.
    Refused,
}

/// A row.
pub struct Row {
    pub name: String,
    /// The template, in `kernel.core_pattern` or in the annotation.
    pub pattern: String,
    /// `kernel.core_uses_pid`, or the same in the project's configuration.
    pub uses_pid: bool,
    /// Sysctls besides those two, the same in both.
    pub sysctls: Vec<(&'static str, &'static str)>,
    /// Options of `parent` besides the PID.
    pub parent: Vec<String>,
    /// The program that dies, in the container.
    pub program: String,
    /// Its arguments: options, then the death.
    pub crasher: Vec<String>,
    /// What is done to the bundle in both.
    pub prepare: fn(&mut Bundle),
    pub forced: Forced,
    /// Where the project says that the core is: `volume`, `store`, `memory`, `layer`. `None` where
    /// the row is not about that.
    pub location: Option<&'static str>,
    /// The kernel randomizes the process's addresses in spite of personality(2), so two cores of it
    /// cannot be compared byte by byte.
    pub randomized: bool,
    /// The pattern's directory is [`SHARED`], one directory of the host under the same path there
    /// and in the container: what the kernel resolves in the host's root is the same file.
    pub is_shared: bool,
}

/// See [`Row::is_shared`].
pub const SHARED: &str = "/tmp/of-the-oracle";

impl Row {
    /// A root process of one thread that dies of SIGSEGV; the core goes to
    /// /cores/core.100; all limits unlimited.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            pattern: "/cores/core".to_owned(),
            uses_pid: true,
            sysctls: Vec::new(),
            parent: Vec::new(),
            program: "/bin/crasher".to_owned(),
            crasher: vec!["null".to_owned()],
            prepare: |_| (),
            forced: Forced::Nothing,
            location: None,
            randomized: false,
            is_shared: false,
        }
    }

    pub fn pattern(mut self, template: impl Into<String>) -> Self {
        self.pattern = template.into();
        self
    }

    /// core_uses_pid = 0.
    pub fn without_pid(mut self) -> Self {
        self.uses_pid = false;
        self
    }

    pub fn sysctl(mut self, name: &'static str, value: &'static str) -> Self {
        self.sysctls.push((name, value));
        self
    }

    /// Adds options of `parent`, split at spaces.
    pub fn parent(mut self, options: &str) -> Self {
        self.parent.extend(options.split(' ').map(str::to_owned));
        self
    }

    /// A shell script that is run in the container after it was started and before the crash.
    pub fn script(mut self, script: &str) -> Self {
        self.parent.extend(["--sh".to_owned(), script.to_owned()]);
        self
    }

    /// Another executable than /bin/crasher.
    pub fn program(mut self, path: &str) -> Self {
        path.clone_into(&mut self.program);
        self
    }

    /// Adds options of `crasher`, split at spaces.
    pub fn crasher(mut self, options: &str) -> Self {
        let death = self.crasher.pop();
        self.crasher.extend(options.split(' ').map(str::to_owned));
        self.crasher.extend(death);
        self
    }

    /// How it dies.
    pub fn death(mut self, how: &str) -> Self {
        self.crasher.pop();
        self.crasher.push(how.to_owned());
        self
    }

    /// The name of the dying thread.
    pub fn comm(self, name: &[u8]) -> Self {
        let hex: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
        self.crasher(&format!("--comm {hex}"))
    }

    pub fn prepare(mut self, prepare: fn(&mut Bundle)) -> Self {
        self.prepare = prepare;
        self
    }

    pub fn forced(mut self, forced: Forced) -> Self {
        self.forced = forced;
        self
    }

    /// Touched pages of zeros, which the kernel writes and the project leaves as holes.
    pub fn zeros(self) -> Self {
        self.crasher("--zeros")
    }

    pub fn location(mut self, word: &'static str) -> Self {
        self.location = Some(word);
        self
    }

    /// The core goes to [`SHARED`].
    pub fn shared(mut self) -> Self {
        self.is_shared = true;
        self.pattern(format!("{SHARED}/core"))
    }

    pub fn randomized(mut self) -> Self {
        self.randomized = true;
        self
    }

    /// Whether the last thread dies and not the leader.
    pub fn in_thread(&self) -> bool {
        self.crasher.iter().any(|option| option == "--in-thread")
    }
}
