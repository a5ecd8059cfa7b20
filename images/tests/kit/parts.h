/* What the kit's files share and tests have no use for. */
#pragma once
#include "kit.h"
#include <stdarg.h>

void console_start(void);
void pages_start(void);
void traps_start(void);
u64 *make_user_root(void);
void say_values(const char *format, va_list values);

extern char boot_stack_top[], trap_entries[];
extern word failsafe_selectors[4];
extern word call_and_catch(void (*function)(word), word argument);
extern void leave_caught(void) __attribute__((noreturn));
extern void user_iret(word rip, word argument, word cs, word rflags) __attribute__((noreturn));
