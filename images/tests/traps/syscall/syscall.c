/* syscall: user code's ways to call its kernel, by the instructions made for it.

   syscall goes to the callback for the width of the code, or is a #UD (x86_64/entry.S, switch_to_kernel). */
#include "kit.h"

#define PLAIN USER __attribute__((naked)) static void

static unsigned calls;

static int answer(struct frame *frame)
{
    if (frame->vector != FROM_SYSCALL || frame->rax == 9)
        return 0;
    calls++;
    frame->rax = frame->rdi + calls;
    return 1;
}

PLAIN user_many_calls(void)
{
    asm("mov $100, %ebx\n1: mov $1, %eax\nmov $1000, %edi\n" USER_CALL "\nmov %eax, %esi\ndec %ebx\njnz 1b\n"
        "mov %esi, %edi\nmov $9, %eax\n" USER_CALL "\nud2");
}

VARIATION(many, "there and back a hundred times")
{
    on_trap = answer;
    check_equal(user(user_many_calls, 0), 1100, "the last answer");
    check_equal(calls, 100, "calls");
}

#if BITS == 64 /* a 32-bit guest's user code calls by an interrupt */
PLAIN user_call(void)
{
    asm("mov $0x1234, %ebx\nmov $0x77, %ecx\nmov $0x78, %r11d\nsyscall\nuser_after_call: ud2");
}
extern char user_after_call[];

VARIATION(frame, "a system call's frame")
{
    user(user_call, 0x55);
    check_equal(fault.vector, FROM_SYSCALL, "the syscall callback");
    check(fault.from_user, "from user code", "cs %x", fault.cs);
    check_equal(fault.frame.rip, user_address(user_after_call), "rip is behind it");
    check_equal(fault.frame.rcx, user_address(user_after_call), "rcx is rip");
    check_equal(fault.frame.live_rcx, user_address(user_after_call), "rcx in the register");
    check_equal(fault.frame.r11, 0x202, "r11 is rflags");
    check_equal(fault.frame.rflags, 0x202, "rflags");
    check_equal(fault.cs, FLAT_USER_CS, "cs");
    check_equal(fault.frame.ss, FLAT_USER_SS, "ss");
    check_equal(fault.frame.rsp, USER_STACK_TOP, "rsp");
    check_equal(fault.entry_rsp, (word)entry_stack_top - 56, "where the frame is");
    check_equal(fault.frame.rbx, 0x1234, "rbx");
    check_equal(fault.frame.rdi, 0x55, "rdi");
}

VARIATION(none, "without a callback it is undefined")
{
    MUST(set_callback(CALLBACKTYPE_syscall, 0, 0));
    user_as(user_call, 0, FLAT_USER_CS, 0x602);
    check_equal(fault.vector, UD, "#UD");
    check_equal(fault.frame.rip, user_address(user_after_call) - 2, "rip is the instruction's");
    check_equal(fault.frame.rcx, user_address(user_after_call), "rcx is what the instruction left");
    check_equal(fault.frame.live_rflags & 0x400, 0x400, "DF stays, as for any exception");
    check_equal(fault.frame.rflags, 0x602, "rflags, without RF");
}

PLAIN user_call_32(void)
{
    asm(".byte 0x0f, 0x05\nud2"); /* syscall */
}

VARIATION(narrow, "from code of 32 bits")
{
    user_as(user_call_32, 0, FLAT_USER_CS32, 0x202);
    check_equal(fault.vector, UD, "without a callback of its own");
    check_equal(fault.cs, FLAT_USER_CS32, "cs of the #UD");
    check_equal(fault.frame.rip, user_address(user_call_32), "rip of the #UD");
    MUST(set_callback(CALLBACKTYPE_syscall32, 0, (word)syscall32_callback));
    user_as(user_call_32, 0, FLAT_USER_CS32, 0x202);
    check_equal(fault.vector, FROM_SYSCALL32, "with one");
    check_equal(fault.cs, FLAT_USER_CS32, "cs");
    check_equal(fault.frame.ss, FLAT_USER_SS, "ss");
    check_equal(fault.frame.rip, user_address(user_call_32) + 2, "rip");
    check_equal(fault.frame.rcx, user_address(user_call_32) + 2, "rcx");
    check_equal(fault.frame.live_cs, FLAT_KERNEL_CS, "the handler's cs");
}

PLAIN user_enter(void)
{
    asm("sysenter\nud2");
}

PLAIN user_exit(void)
{
    asm("sysexit\nud2");
}

VARIATION(enter, "sysenter and sysexit: an AMD processor does not have them in long mode, callback or not")
{
    u32 a = 1, b = 0, c = 0, d = 0;
    asm volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    check_equal(d >> 11 & 1, 0, "CPUID does not offer them");
    MUST(set_callback(CALLBACKTYPE_sysenter, 0, (word)sysenter_callback));
    user(user_enter, 0);
    check_equal(fault.vector, UD, "sysenter");
    check_equal(fault.frame.rip, user_address(user_enter), "its address");
    user(user_exit, 0);
    check_equal(fault.vector, UD, "sysexit");
    user_as(user_enter, 0, FLAT_USER_CS32, 0x202);
    check_equal(fault.vector, UD, "sysenter from code of 32 bits");
    TRAPS("sysenter by the kernel", UD, 0, TRY("sysenter", :));
}

VARIATION(user_hypercall, "user code cannot make hypercalls: it calls its kernel")
{
    user(user_return, 7);
    check_equal(fault.vector, FROM_SYSCALL, "a system call");
    check_equal(fault.frame.rdi, 7, "its argument");
}
#endif
