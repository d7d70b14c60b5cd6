/*
 * Preloaded into the user-mode-linux kernel: makes it run on CPUs with AMX.
 *
 * UML moves the FPU state of its processes with PTRACE_GETREGSET and
 * PTRACE_SETREGSET through a buffer whose size is a constant of UML 6.1. With
 * AMX the host's XSAVE area is larger than that, and the host refuses to set a
 * part of it: "ptrace set fp regs failed, errno = 14", and init dies. Here both
 * calls go through a buffer that is large enough; what UML does not know of
 * keeps the value it has in the process. Without AMX nothing changes.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { PEEK_FIRST = 1, PEEK_LAST = 3, GETREGSET = 0x4204, SETREGSET = 0x4205, X86_XSTATE = 0x202 };

/* XSTATE_BV, the list of what the area holds, stands after the 512 bytes of the old FXSAVE format. */
enum { BV_OFFSET = 512, BV_END = BV_OFFSET + 8 };
#define BV_KNOWN UINT64_C(0xff) /* x87 up to AVX-512: all that fits UML's buffer */

static char area[32768] __attribute__((aligned(64))); /* UML has one CPU and calls from one thread */

static uint64_t area_bv(void)
{
	uint64_t bv;
	memcpy(&bv, area + BV_OFFSET, sizeof bv);
	return bv;
}

static void mask_bv(char *state, size_t len, uint64_t keep, uint64_t add)
{
	uint64_t bv;
	if (len < BV_END)
		return;
	memcpy(&bv, state + BV_OFFSET, sizeof bv);
	bv = (bv & keep) | add;
	memcpy(state + BV_OFFSET, &bv, sizeof bv);
}

static long xstate(int request, long pid, struct iovec *uml)
{
	struct iovec whole = { area, sizeof area };
	long rc = syscall(SYS_ptrace, (long)GETREGSET, pid, (long)X86_XSTATE, &whole);
	if (rc < 0)
		return rc;
	size_t len = uml->iov_len < whole.iov_len ? uml->iov_len : whole.iov_len;
	if (request == GETREGSET) {
		memcpy(uml->iov_base, area, len);
		mask_bv(uml->iov_base, len, BV_KNOWN, 0);
		uml->iov_len = len;
		return 0;
	}
	uint64_t foreign = area_bv() & ~BV_KNOWN;
	memcpy(area, uml->iov_base, len);
	mask_bv(area, len, BV_KNOWN, foreign);
	return syscall(SYS_ptrace, (long)SETREGSET, pid, (long)X86_XSTATE, &whole);
}

long ptrace(int request, ...)
{
	va_list args;
	va_start(args, request);
	long pid = va_arg(args, int), addr = va_arg(args, long), data = va_arg(args, long);
	va_end(args);
	if ((request == GETREGSET || request == SETREGSET) && addr == X86_XSTATE)
		return xstate(request, pid, (struct iovec *)data);
	if (request >= PEEK_FIRST && request <= PEEK_LAST) {
		/* the C library's function returns the word, the system call stores it */
		long word;
		if (syscall(SYS_ptrace, (long)request, pid, addr, &word) < 0)
			return -1;
		errno = 0;
		return word;
	}
	return syscall(SYS_ptrace, (long)request, pid, addr, data);
}
