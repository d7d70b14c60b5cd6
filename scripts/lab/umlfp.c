/*
 * Preloaded into the user-mode-linux kernel: the FPU state of its processes, on CPUs with AMX, and moved only when it must be.
 *
 * UML reads that state whenever a process stops, with PTRACE_GETREGSET, and writes it whenever one goes on, with
 * PTRACE_SETREGSET; at a page fault it does both twice.
 *
 * - With AMX the host's XSAVE area is larger than the buffer of UML 6.1, whose size is a constant, and the host refuses to set a
 *   part of it: "ptrace set fp regs failed, errno = 14", and init dies. Here both calls go through a buffer that is large enough;
 *   what UML does not know of keeps the value it has in the process.
 * - Each of these calls moves kilobytes, and each write has the host allocate them first. So what a stopped process has is
 *   remembered: reading it again asks nobody, and it is written when the process goes on to run code of its own, if it is
 *   not there already. That leaves two calls of six at a page fault, and one of three at a system call.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
	TRACEME = 0, PEEK_FIRST = 1, PEEK_LAST = 3, CONT = 7, KILL = 8, SINGLESTEP = 9, ATTACH = 16, DETACH = 17, OLDSETOPTIONS = 21,
	SYSCALL = 24, SYSEMU = 31, SYSEMU_SINGLESTEP = 32, SETOPTIONS = 0x4200, GETREGSET = 0x4204, SETREGSET = 0x4205,
	X86_XSTATE = 0x202
};

/* XSTATE_BV, the list of what the area holds, stands after the 512 bytes of the old FXSAVE format. */
enum { BV_OFFSET = 512, BV_END = BV_OFFSET + 8 };
#define BV_KNOWN UINT64_C(0xff) /* x87 up to AVX-512: all that fits UML's buffer */

/* The state of the process that UML dealt with last: it has one CPU and calls from one thread. */
static struct {
	long pid; /* 0: of none */
	bool there; /* the process has it in its registers */
	size_t len;
	char area[32768] __attribute__((aligned(64)));
} held;

static char wanted[sizeof held.area] __attribute__((aligned(64)));

static uint64_t bv_of(const char *state)
{
	uint64_t bv;
	memcpy(&bv, state + BV_OFFSET, sizeof bv);
	return bv;
}

static void mask_bv(char *state, size_t len, uint64_t keep, uint64_t add)
{
	uint64_t bv;
	if (len < BV_END)
		return;
	bv = (bv_of(state) & keep) | add;
	memcpy(state + BV_OFFSET, &bv, sizeof bv);
}

/* Into the registers with it, if it is not there. */
static long put(void)
{
	struct iovec whole = { held.area, held.len };
	if (held.pid == 0 || held.there)
		return 0;
	held.there = true;
	return syscall(SYS_ptrace, (long)SETREGSET, held.pid, (long)X86_XSTATE, &whole);
}

/* From here on what is held is this process's. */
static long hold(long pid)
{
	struct iovec whole = { held.area, sizeof held.area };
	if (held.pid == pid)
		return 0;
	put(); /* one that is gone meanwhile needs it no more */
	held.pid = 0;
	if (syscall(SYS_ptrace, (long)GETREGSET, pid, (long)X86_XSTATE, &whole) < 0)
		return -1;
	held.pid = pid;
	held.there = true;
	held.len = whole.iov_len;
	return 0;
}

static long xstate(int request, long pid, struct iovec *uml)
{
	if (hold(pid) < 0)
		return -1;
	size_t len = uml->iov_len < held.len ? uml->iov_len : held.len;
	if (request == GETREGSET) {
		memcpy(uml->iov_base, held.area, len);
		mask_bv(uml->iov_base, len, BV_KNOWN, 0);
		uml->iov_len = len;
		return 0;
	}
	memcpy(wanted, uml->iov_base, len);
	mask_bv(wanted, len, BV_KNOWN, bv_of(held.area) & ~BV_KNOWN);
	if (memcmp(held.area, wanted, len) != 0) {
		memcpy(held.area, wanted, len);
		held.there = false;
	}
	return 0;
}

/* What a request does to the state that is held. */
static long before(int request, long pid)
{
	long rc = 0;
	if (pid != held.pid)
		return 0;
	switch (request) {
	case CONT: /* UML's own code in the process, or a signal to it: UML writes the state anew afterwards, if it was another */
		held.there = false;
		break;
	case SINGLESTEP: case SYSCALL: case SYSEMU: case SYSEMU_SINGLESTEP: /* code of its own, which may change it */
		rc = put();
		held.pid = 0;
		break;
	case TRACEME: case KILL: case ATTACH: case DETACH: case OLDSETOPTIONS: case SETOPTIONS: /* the end of it, or another of its number */
		held.pid = 0;
		break;
	}
	return rc;
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
	if (before(request, pid) < 0)
		return -1;
	return syscall(SYS_ptrace, (long)request, pid, addr, data);
}
