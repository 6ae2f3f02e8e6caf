//! System call filters for processes that have given up their privileges: a call that is not
//! listed kills the process. The programs are made by the compiler, so that a filter costs
//! its process one system call.

use anyhow::{Context, Result};
use seccompiler::sock_filter;

/// One line of a filter.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rule {
    /// The call is allowed. The number is that of the call.
    Allow(i64),
    /// The call is allowed if the low half of argument `.1`, masked with `.2`, equals `.3`.
    /// Several rules may name one call.
    AllowIf(i64, u32, u32, u32),
    /// The call fails with this error.
    Fail(i64, i32),
}

use Rule::{Allow, AllowIf, Fail};

/// What every such process needs: non-executable memory, the time, its own end.
pub(crate) const BASE: &[Rule] = &[
    AllowIf(libc::SYS_mmap, 2, libc::PROT_EXEC as u32, 0),
    AllowIf(libc::SYS_mprotect, 2, libc::PROT_EXEC as u32, 0),
    Allow(libc::SYS_munmap),
    Allow(libc::SYS_mremap),
    Allow(libc::SYS_madvise),
    Allow(libc::SYS_brk),
    Allow(libc::SYS_futex),
    Allow(libc::SYS_clock_gettime),
    Allow(libc::SYS_rt_sigprocmask),
    Allow(libc::SYS_rt_sigreturn),
    Allow(libc::SYS_sigaltstack),
    Allow(libc::SYS_gettid),
    Allow(libc::SYS_close),
    // After a SIGSTOP and a SIGCONT.
    Allow(libc::SYS_restart_syscall),
    Allow(libc::SYS_exit),
    Allow(libc::SYS_exit_group),
];

/// Creating threads, and nothing else that clone(2) can create. The flags of clone3 are in memory,
/// where a filter cannot see them; C libraries then fall back to clone.
pub(crate) const THREADS: &[Rule] = &[
    AllowIf(libc::SYS_clone, 0, (libc::CLONE_THREAD | NEW) as u32, libc::CLONE_THREAD as u32),
    Fail(libc::SYS_clone3, libc::ENOSYS),
    // The C library's own signals, set up with the first thread.
    Allow(libc::SYS_rt_sigaction),
    Allow(libc::SYS_set_robust_list),
    Allow(libc::SYS_rseq),
    Allow(libc::SYS_sched_getaffinity),
    Allow(libc::SYS_sched_yield),
];

const NEW: i32 = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP;

/// `ioctl(2)` with this request only.
pub(crate) const fn ioctl(request: u64) -> Rule {
    AllowIf(libc::SYS_ioctl, 1, u32::MAX, request as u32)
}

/// `fcntl(2)` with this command only.
pub(crate) const fn fcntl(command: i32) -> Rule {
    AllowIf(libc::SYS_fcntl, 1, u32::MAX, command as u32)
}

/// For a process that copies from a pipe, or from another process's memory, to an open file, with
/// several threads. It cannot open, start or send anything.
pub(crate) static COPY: BpfProgram = program(&[
    BASE,
    THREADS,
    &[
        Allow(libc::SYS_read),
        Allow(libc::SYS_pread64),
        Allow(libc::SYS_process_vm_readv),
        // For reading its own memory, for the page that all processes share.
        Allow(libc::SYS_getpid),
        ioctl(super::pagemap::SCAN),
        Allow(libc::SYS_write),
        Allow(libc::SYS_pwrite64),
        Allow(libc::SYS_ftruncate),
        Allow(libc::SYS_fstat),
        Allow(libc::SYS_fstatfs),
        Allow(libc::SYS_newfstatat),
        Allow(libc::SYS_statx),
        fcntl(libc::F_SETPIPE_SZ),
        // std checks that a descriptor is open before it closes it.
        fcntl(libc::F_GETFD),
        fcntl(libc::F_DUPFD_CLOEXEC),
        // For releasing the kernel's end of the pipe.
        #[cfg(target_arch = "x86_64")]
        Allow(libc::SYS_dup2),
        Allow(libc::SYS_dup3),
        #[cfg(target_arch = "x86_64")]
        Allow(libc::SYS_poll),
        Allow(libc::SYS_ppoll),
    ],
]);

#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xc000_00b7;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
/// When the kernel takes a filter it evaluates it for every call number, to find those that are
/// always allowed, and stops at an instruction that it does not expect. With this one first, a
/// filter costs a process half as much. (What the evaluation would gain, some nanoseconds for each
/// call, no copy makes enough calls for.)
///
/// # References
/// kernel/seccomp.c: seccomp_is_const_allow(), Linux 5.11.
const LOAD_CONSTANT: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_IMM) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// Most instructions, since a jump has one byte. A longer filter does not compile.
const MOST: usize = 256;

/// A filter in the form that the kernel takes.
#[derive(Debug)]
pub(crate) struct BpfProgram {
    code: [sock_filter; MOST],
    size: usize,
}

/// Distance of the two final instructions from the end.
const ALLOW: usize = 0;
const KILL: usize = 1;

/// Builds the filter: a binary search for the call number.
///
/// # References
/// seccomp(2); `struct seccomp_data`: the number at 0, the architecture at 4,
/// the arguments from 16 on.
pub(crate) const fn program(lists: &[&[Rule]]) -> BpfProgram {
    let mut rules = [Allow(-1); MOST];
    let mut count = 0;
    let mut l = 0;
    while l < lists.len() {
        let mut r = 0;
        while r < lists[l].len() {
            // Insertion sort by number.
            let mut i = count;
            while i > 0 && number(rules[i - 1]) > number(lists[l][r]) {
                rules[i] = rules[i - 1];
                i -= 1;
            }
            rules[i] = lists[l][r];
            count += 1;
            r += 1;
        }
        l += 1;
    }
    // Jumps only go forward, so the program is built from its end.
    let mut made =
        BpfProgram { code: [const { sock_filter { code: 0, jt: 0, jf: 0, k: 0 } }; MOST], size: 0 };
    made.add(RETURN, libc::SECCOMP_RET_ALLOW);
    made.add(RETURN, libc::SECCOMP_RET_KILL_PROCESS);
    made.search(&rules, 0, count);
    let start = made.add(LOAD, 0);
    made.jump(EQUAL, ARCH, start, KILL);
    made.add(LOAD, 4);
    made.add(LOAD_CONSTANT, 0);
    made.turn();
    made
}

impl BpfProgram {
    /// Prepends an instruction; returns its distance from the end.
    const fn add(&mut self, code: u16, k: u32) -> usize {
        self.code[self.size] = sock_filter { code, jt: 0, jf: 0, k };
        self.size += 1;
        self.size - 1
    }

    const fn jump(&mut self, code: u16, k: u32, yes: usize, no: usize) -> usize {
        let at = self.add(code, k);
        assert!(at - yes <= MOST && at - no <= MOST);
        (self.code[at].jt, self.code[at].jf) = ((at - yes - 1) as u8, (at - no - 1) as u8);
        at
    }

    /// Builds the search among some of the sorted rules; returns where it starts.
    const fn search(&mut self, rules: &[Rule], from: usize, to: usize) -> usize {
        let mut middle = (from + to) / 2;
        // Rules of one call stay together.
        while middle > from && number(rules[middle]) == number(rules[middle - 1]) {
            middle -= 1;
        }
        if middle == from {
            middle += 1;
            while middle < to && number(rules[middle]) == number(rules[from]) {
                middle += 1;
            }
        }
        if middle == to {
            return self.call(rules, from, to);
        }
        let low = self.search(rules, from, middle);
        let high = self.search(rules, middle, to);
        self.jump(AT_LEAST, number(rules[middle]) as u32, high, low)
    }

    /// Builds the checks of one call's rules.
    const fn call(&mut self, rules: &[Rule], from: usize, to: usize) -> usize {
        let mut next = KILL;
        let mut r = to;
        while r > from {
            r -= 1;
            next = match rules[r] {
                Allow(_) => ALLOW,
                Fail(_, error) => self.add(RETURN, libc::SECCOMP_RET_ERRNO | error as u32),
                AllowIf(_, argument, mask, value) => {
                    self.jump(EQUAL, value, ALLOW, next);
                    self.add(AND, mask);
                    self.add(LOAD, 16 + 8 * argument)
                }
            };
        }
        self.jump(EQUAL, number(rules[from]) as u32, next, KILL)
    }

    const fn turn(&mut self) {
        let mut i = 0;
        while i < self.size / 2 {
            self.code.swap(i, self.size - 1 - i);
            i += 1;
        }
    }
}

const fn number(rule: Rule) -> i64 {
    match rule {
        Allow(call) | AllowIf(call, ..) | Fail(call, _) => call,
    }
}
/// Restricts this process, which must have one thread, and the threads that it starts
/// to what the program allows.
///
/// # References
/// seccomp(2), Linux 3.17; `SECCOMP_RET_KILL_PROCESS`, Linux 4.14.
pub(crate) fn enter(program: &BpfProgram) -> Result<()> {
    // One heap for all threads: to shrink a second one, glibc first opens a file of /proc.
    #[cfg(target_env = "gnu")]
    // SAFETY: called by the only thread; it only sets a number of the allocator's.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1)
    };
    seccompiler::apply_filter(&program.code[..program.size])
        .context("seccomp(SECCOMP_SET_MODE_FILTER)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::child::{self, Ended};
    use crate::sys::descriptor;

    const RULES: &[&[Rule]] = &[BASE, THREADS, &[fcntl(libc::F_GETFD)]];
    static PROGRAM: BpfProgram = program(RULES);

    fn under_it(work: impl FnOnce() -> i32) -> Ended {
        let child = child::fork(|| if enter(&PROGRAM).is_ok() { work() } else { 99 }).unwrap();
        child.end_within(std::time::Duration::from_secs(60)).unwrap().unwrap()
    }

    #[test]
    fn what_is_named_goes_on() {
        assert_eq!(under_it(|| std::thread::spawn(|| 7).join().unwrap_or(1)), Ended::Exit(7));
        // SAFETY: reads a flag of descriptor 0.
        assert_eq!(
            under_it(|| i32::from(unsafe { libc::fcntl(0, libc::F_GETFD) } < 0)),
            Ended::Exit(0)
        );
        assert_eq!(under_it(|| vec![1u8; 8 << 20].len() as i32 >> 20), Ended::Exit(8));
    }

    #[test]
    fn what_is_not_named_kills() {
        const CODE: i32 = libc::PROT_READ | libc::PROT_EXEC;
        let attempts: [fn() -> bool; 6] = [
            || std::fs::File::open("/etc/passwd").is_ok(),
            || child::fork(|| 0).is_ok(),
            || std::os::unix::net::UnixStream::pair().is_ok(),
            || descriptor::write(std::io::stdout(), b"").is_ok(),
            // SAFETY: neither call touches memory of this process.
            || unsafe { libc::fcntl(0, libc::F_GETFL) } >= 0,
            || {
                !unsafe {
                    libc::mmap(
                        std::ptr::null_mut(),
                        4096,
                        CODE,
                        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                        -1,
                        0,
                    )
                }
                .is_null()
            },
        ];
        for (i, attempt) in attempts.into_iter().enumerate() {
            let ended = under_it(|| i32::from(attempt()));
            assert_eq!(ended, Ended::Signal(libc::SIGSYS), "attempt {i}");
        }
    }
}
