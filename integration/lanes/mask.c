/*
 * `mask WHAT ARGUMENT...`: becomes `HELPER handle ARGUMENT...` without some system calls, as on an
 * older kernel or under a stricter one. The letters of WHAT:
 *
 *   s   ioctl(PAGEMAP_SCAN): ENOTTY, as before Linux 6.7
 *   v   process_vm_readv: EPERM
 *   p   pread64: EACCES. With v a process's memory cannot be read, with s nor its page map
 *   t   new threads: EAGAIN
 *   d   fcntl(F_DUPFD_CLOEXEC): EMFILE
 *   u   userfaultfd: ENOSYS
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define HELPER "/usr/libexec/oci/hooks.d/oci-coredump"
#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define FAIL(error) BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (error))

int main(int argc, char **argv)
{
	if (argc < 3)
		return 64;
	struct sock_filter all[64];
	unsigned short count = 0;
	struct rule {
		char letter;
		unsigned call;
		int argument;
		unsigned value, bits;
		int error;
	} rules[] = {
		{ 's', __NR_ioctl, 1, 0xc0606610, 0xffffffff, ENOTTY },
		{ 'v', __NR_process_vm_readv, -1, 0, 0, EPERM },
		{ 'p', __NR_pread64, -1, 0, 0, EACCES },
		{ 't', __NR_clone3, -1, 0, 0, ENOSYS },
		{ 't', __NR_clone, 0, 0x10000, 0x10000, EAGAIN },
		{ 'd', __NR_fcntl, 1, F_DUPFD_CLOEXEC, 0xffffffff, EMFILE },
		{ 'u', __NR_userfaultfd, -1, 0, 0, ENOSYS },
	};
	for (size_t at = 0; at < sizeof rules / sizeof *rules; at++) {
		struct rule *r = &rules[at];
		if (!strchr(argv[1], r->letter))
			continue;
		struct sock_filter own[] = {
			LOAD(nr),
			BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, r->call, 0, 4),
			BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
				 offsetof(struct seccomp_data, args) +
					 8 * (r->argument < 0 ? 0 : r->argument)),
			BPF_STMT(BPF_ALU | BPF_AND | BPF_K, r->bits),
			BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, r->value, 0, 1),
			FAIL(r->error),
		};
		memcpy(all + count, own, sizeof own);
		count += sizeof own / sizeof *own;
	}
	all[count++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog program = { count, all };
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		return 71;
	argv[0] = "oci-coredump";
	argv[1] = "handle";
	execve(HELPER, argv, (char *[]){ NULL });
	return 72;
}
