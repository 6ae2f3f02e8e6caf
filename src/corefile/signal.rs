//! Describes a signal in words: the meaning of `si_code` and of the address, from
//! `include/uapi/asm-generic/siginfo.h`.

use super::hex;
use super::segments::Machine;
use crate::elf::{i32_at, u64_at};
use crate::record::signal_name;
use serde::{Deserialize, Serialize};

/// The signal that killed a process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Signal {
    /// Signal number.
    pub number: i32,
    /// Signal name, such as `SIGSEGV`.
    pub name: String,
    /// `si_code`, if the core has NT_SIGINFO.
    pub code: Option<i32>,
    /// What happened, as a phrase.
    #[serde(rename = "words")]
    pub meaning: Option<String>,
    /// The address that the signal concerns.
    #[serde(default, with = "hex::option")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub address: Option<u64>,
    /// The process that sent it, if one did: its ID in the crasher's PID namespace.
    pub sender: Option<i32>,
}

impl Signal {
    /// A signal of which only the number is known.
    pub(crate) fn bare(number: i32) -> Self {
        Signal { number, name: signal_name(number), ..Signal::default() }
    }

    /// Reads a `siginfo_t`: si_signo at 0, si_code at 8, the union at 16.
    pub(crate) fn of_siginfo(d: &[u8], machine: Machine) -> Option<Self> {
        let (number, code) = (i32_at(d, 0)?, i32_at(d, 8)?);
        let mut signal = Signal { code: Some(code), ..Signal::bare(number) };
        if code <= 0 {
            signal.meaning = sent(code, i32_at(d, 16), i32_at(d, 20));
            signal.sender = matches!(code, 0 | -1 | -6).then(|| i32_at(d, 16)).flatten();
            return Some(signal);
        }
        if code == SI_KERNEL {
            signal.meaning = Some(match (number, machine) {
                // The CPU reports no address for these.
                (11, Machine::X86_64) => "general protection fault: the address is not canonical, \
                                          or the instruction is not allowed"
                    .into(),
                _ => "sent by the kernel".into(),
            });
            return Some(signal);
        }
        let meaning = fault(number, code);
        let about = matches!(number, 4 | 5 | 7 | 8 | 11).then(|| u64_at(d, 16)).flatten();
        signal.address = about;
        signal.meaning = match (number, meaning) {
            (31, _) => Some(format!(
                "system call {} is not allowed (seccomp)",
                i32_at(d, 24).unwrap_or(-1)
            )),
            // A failed access concerns the address; a failed instruction is at the address.
            (4 | 5 | 8, Some(w)) => Some(about.map_or(w.to_owned(), |a| format!("{w} at {a:#x}"))),
            (11, Some(w)) if matches!(code, 3 | 4) => {
                Some(about.map_or(w.to_owned(), |a| format!("{w} at {a:#x}")))
            }
            (_, Some(w)) => Some(about.map_or(w.to_owned(), |a| format!("{w} {a:#x}"))),
            (_, None) => Some(format!("code {code}")),
        };
        Some(signal)
    }

    /// Says so if the process sent the signal to itself.
    pub(crate) fn of_process(self, pid: i32) -> Self {
        let meaning = if self.sender == Some(pid) {
            Some("raised by the process itself (abort, raise)".into())
        } else {
            self.meaning
        };
        Signal { meaning, ..self }
    }
}

const SI_KERNEL: i32 = 0x80;

/// Codes of a signal that was sent.
fn sent(code: i32, pid: Option<i32>, uid: Option<i32>) -> Option<String> {
    let who = || Some(format!("process {} (user {})", pid?, uid?.cast_unsigned()));
    Some(match code {
        0 => format!("sent by {} with kill", who()?),
        -6 => format!("sent by {} with tgkill or raise", who()?),
        -1 => format!("sent by {} with sigqueue", who()?),
        -2 => "a timer ran out".into(),
        -3 => "a message arrived in a queue".into(),
        other => format!("code {other}"),
    })
}

/// Codes of a signal that an instruction caused.
fn fault(number: i32, code: i32) -> Option<&'static str> {
    let meanings: &[&str] = match number {
        4 => &[
            "illegal opcode",
            "illegal operand",
            "illegal addressing mode",
            "illegal trap",
            "privileged opcode",
            "privileged register",
            "coprocessor error",
            "internal stack error",
        ],
        8 => &[
            "integer division by zero",
            "integer overflow",
            "floating-point division by zero",
            "floating-point overflow",
            "floating-point underflow",
            "inexact floating-point result",
            "invalid floating-point operation",
            "subscript out of range",
        ],
        11 => &[
            "address not mapped at",
            "no permission for address",
            "bounds check failed",
            "protection-key check failed",
            "memory tagging not enabled for",
            "deferred memory tagging exception, not at",
            "memory tag check failed at",
            "memory tag check failed at",
            "shadow stack check failed at",
            "shadow stack check failed at",
        ],
        7 => &[
            "misaligned address",
            "no memory or file behind address",
            "hardware error at",
            "hardware memory error, which must be acted on, at",
            "hardware memory error, found in passing, at",
        ],
        5 => &[
            "breakpoint",
            "trace trap",
            "branch trap",
            "hardware breakpoint or watchpoint",
            "trap",
            "perf event",
        ],
        _ => return None,
    };
    meanings.get(usize::try_from(code - 1).ok()?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meanings() {
        let info = |number: i32, code: i32, union: [i32; 4]| {
            let words = [number, 0, code, 0, union[0], union[1], union[2], union[3]];
            let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
            Signal::of_siginfo(&bytes, Machine::X86_64).unwrap()
        };
        for (number, code, union, expected) in [
            (11, 1, [0x10, 0, 0, 0], "address not mapped at 0x10"),
            (11, 2, [0, 1, 0, 0], "no permission for address 0x100000000"),
            (
                11,
                0x80,
                [0; 4],
                "general protection fault: the address is not canonical, or the instruction is not \
                 allowed",
            ),
            (6, -6, [12, 1000, 0, 0], "sent by process 12 (user 1000) with tgkill or raise"),
            (3, 0, [0, -1, 0, 0], "sent by process 0 (user 4294967295) with kill"),
            (8, 1, [0x1139, 0, 0, 0], "integer division by zero at 0x1139"),
            (7, 2, [0x1000, 0, 0, 0], "no memory or file behind address 0x1000"),
            (31, 1, [0, 0, 59, 0], "system call 59 is not allowed (seccomp)"),
            (11, 99, [0; 4], "code 99"),
        ] {
            assert_eq!(info(number, code, union).meaning.as_deref(), Some(expected));
        }
        assert_eq!(Signal::of_siginfo(&[0; 10], Machine::X86_64), None);
        assert_eq!(Signal::bare(11).name, "SIGSEGV");
    }
}
