/* Runs the 32-bit program that lies beside this one; that one says itself what is wrong. */
#include "check.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define STATUS_32 42

void compat(void)
{
    char path[256];
    const char *slash = strrchr(self_path, '/');
    snprintf(path, sizeof path, "%.*s/compat32", (int)(slash - self_path), self_path);
    for (int i = 0; i < 3; i++) {
        pid_t child = TRY(fork());
        if (child == 0) {
            execve(path, (char *[]){path, "argument", NULL}, (char *[]){"VARIABLE=32", NULL});
            fail(__FILE__, __LINE__, "execve of %s: %s", path, strerror(errno));
        }
        expect_exit(child, STATUS_32);
    }
}
