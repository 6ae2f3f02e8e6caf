//! The program's first instructions, before the C library's: a crash goes to the resident dispatcher (`oci-coredump serve`), where there is one, and this process
//! ends. It has then paid for none of what the C library does at its start: on a virtual machine that is a third of a millisecond of CPUID instructions, each
//! of which traps, and the relocation of a program that is larger than all that is needed of it.
//!
//! Where there is no such dispatcher, or it does not answer, the C library's start follows, and this process handles the crash itself.
//!
//! Compiled into the program, not the library. Nothing is set up here: no relocation was made, and there is neither thread-local storage nor an allocator. No function of
//! the C library may be called, and none that the compiler knows by heart (memcpy, strlen): so bytes are read and written one by one, and nothing is iterated over.

use core::arch::{asm, global_asm};
use core::mem::MaybeUninit;
use oci_coredump::config::SERVE_SOCKET;
use oci_coredump::sysctl::HANDLE_COUNT;

// The kernel gives the stack with the arguments in rsp, and in rdx what the C library must find there.
global_asm!(
    ".globl oci_coredump_start",
    ".type oci_coredump_start, @function",
    "oci_coredump_start:",
    "xor ebp, ebp",
    "mov r12, rsp",
    "mov r13, rdx",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {hand_over}",
    "mov rsp, r12",
    "mov rdx, r13",
    "jmp _start",
    hand_over = sym hand_over,
);

/// How long the dispatcher has to take a crash, in seconds. Then this process does it.
const PATIENCE: i64 = 2;

/// Where the pidfd stands among the arguments of `handle`, and its only value.
const PIDFD: usize = 11;

/// Makes a system call.
///
/// # Safety
/// As the call demands.
#[inline(always)]
unsafe fn call(number: i64, a: usize, b: usize, c: usize, d: usize, e: usize) -> isize {
    let result;
    // SAFETY: the convention of the architecture; see syscall(2).
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e,
             lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

/// # Safety
/// `stack` is what the kernel gave: the number of arguments, and pointers to them, each of which ends in a NUL.
unsafe extern "C" fn hand_over(stack: *const usize) {
    // SAFETY: by the contract of this function; nothing else is read, and only what stands on this function's own stack is written.
    unsafe {
        let count = *stack;
        let arguments = stack.add(1).cast::<*const u8>();
        if count != HANDLE_COUNT + 2 || !is(*arguments.add(1), b"handle\0") {
            return;
        }
        let socket = call(libc::SYS_socket, libc::AF_UNIX as usize, (libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK) as usize, 0, 0, 0);
        if socket < 0 {
            return;
        }
        let socket = socket as usize;
        if connect(socket) && hears(socket) && send(socket, arguments, count) && hears(socket) {
            call(libc::SYS_exit_group, 0, 0, 0, 0, 0);
        }
        call(libc::SYS_close, socket, 0, 0, 0, 0);
    }
}

/// # Safety
/// `text` ends in a NUL.
unsafe fn is(text: *const u8, what: &[u8]) -> bool {
    let mut i = 0;
    while i < what.len() {
        // SAFETY: not read beyond its NUL: `what` has no other than at its end.
        if unsafe { look(text.add(i)) } != what[i] {
            return false;
        }
        i += 1;
    }
    true
}

/// Reads a byte in a way that no compiler makes anything else of: it knows strlen when it sees it.
///
/// # Safety
/// The byte is there.
#[inline(always)]
unsafe fn look(at: *const u8) -> u8 {
    let byte;
    // SAFETY: by the contract.
    unsafe { asm!("mov {}, byte ptr [{}]", out(reg_byte) byte, in(reg) at, options(nostack, preserves_flags, readonly)) }
    byte
}

/// Writes one likewise.
///
/// # Safety
/// The byte is there.
#[inline(always)]
unsafe fn put(at: *mut u8, byte: u8) {
    // SAFETY: by the contract.
    unsafe { asm!("mov byte ptr [{}], {}", in(reg) at, in(reg_byte) byte, options(nostack, preserves_flags)) }
}

/// # Safety
/// None besides that of being a system call.
unsafe fn connect(socket: usize) -> bool {
    // struct sockaddr_un: the family, of two bytes, and the path.
    let mut address = MaybeUninit::<[u8; 110]>::uninit();
    let to = (&raw mut address).cast::<u8>();
    let path = SERVE_SOCKET.as_bytes();
    // SAFETY: what is pointed to lives for the calls; the path and its NUL fit, or this does not compile.
    unsafe {
        const { assert!(SERVE_SOCKET.len() < 108) };
        put(to, libc::AF_UNIX as u8);
        put(to.add(1), 0);
        let mut i = 0;
        while i < path.len() {
            put(to.add(2 + i), path[i]);
            i += 1;
        }
        put(to.add(2 + i), 0);
        call(libc::SYS_connect, socket, to as usize, 2 + path.len() + 1, 0, 0) == 0
    }
}

/// A message with descriptors: the header of the control message, and as many as two numbers.
#[repr(C)]
struct Control {
    length: usize,
    level: i32,
    kind: i32,
    numbers: [i32; 2],
}

/// Sends the arguments, one after the other as the kernel has laid them out, the pipe, and the pidfd if there is one.
///
/// # Safety
/// As for `hand_over`.
unsafe fn send(socket: usize, arguments: *const *const u8, count: usize) -> bool {
    // SAFETY: by the contract; all that is pointed to lives for the call.
    unsafe {
        let first = *arguments.add(2);
        let mut end = *arguments.add(count - 1);
        while look(end) != 0 {
            end = end.add(1);
        }
        let pidfd = is(*arguments.add(2 + PIDFD), b"3\0");
        let control = Control { length: 16 + 4 * (1 + usize::from(pidfd)), level: libc::SOL_SOCKET, kind: libc::SCM_RIGHTS, numbers: [0, 3] };
        let part = [first as usize, end as usize + 1 - first as usize];
        // struct msghdr: name, its length, parts, their number, control messages, their length, flags.
        let message = [0, 0, (&raw const part) as usize, 1, (&raw const control) as usize, control.length, 0];
        call(libc::SYS_sendmsg, socket, (&raw const message) as usize, libc::MSG_NOSIGNAL as usize, 0, 0) == part[1] as isize
    }
}

/// Whether the dispatcher says a word: that it is there, and then that it has the crash. When it is too late it can say so no more. Only one that is there is given the
/// pipe: in the hands of one that hangs it would hold the crashed process.
///
/// # Safety
/// None besides that of being a system call.
unsafe fn hears(socket: usize) -> bool {
    let mut word = 0u8;
    let to = (&raw mut word) as usize;
    let wait = libc::pollfd { fd: socket as i32, events: libc::POLLIN, revents: 0 };
    let time = [PATIENCE, 0i64];
    // SAFETY: the byte lives for the calls.
    unsafe {
        if call(libc::SYS_ppoll, (&raw const wait) as usize, 1, (&raw const time) as usize, 0, 0) != 1 {
            call(libc::SYS_shutdown, socket, libc::SHUT_RDWR as usize, 0, 0, 0);
        }
        call(libc::SYS_recvfrom, socket, to, 1, 0, 0) == 1
    }
}
