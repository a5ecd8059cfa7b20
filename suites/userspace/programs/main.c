/*
 * Runs the programs of this folder, each in a process of its own, and prints one line for each:
 *
 *     ok NAME
 *     not ok NAME: reason
 *
 * after lines `# NAME: text` with what the program had to tell. Which ones: the arguments, or else the names in the
 * environment variable programs=a,b,c (Linux hands words of its command line that it does not know to /init's
 * environment), or else all. The last line is `done: N programs`.
 */
#include "check.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LONGEST_SECONDS 120

#define PROGRAMS(X) \
    X(forks) X(fpu_switch) X(fpu_signal) X(fpu_fork) X(signals) X(altstack) X(interrupted) \
    X(faults_memory) X(faults_arithmetic) X(faults_opcode) X(faults_resume) X(faults_icebp) X(faults_simd) \
    X(faults_x87_invalid) X(faults_alignment) \
    X(privileged) X(churn) X(cow) X(filedata) X(compat) X(step) X(step_far) X(hardware_breakpoint) X(watchpoint) \
    X(clocks) X(sleeps) X(timers) X(threads) X(tls) X(syscalls) X(features) X(segment_bases) X(ldt) X(pty)

#define DECLARE(name) void name(void);
PROGRAMS(DECLARE)

static const struct program {
    const char *name;
    void (*run)(void);
} programs[] = {
#define ENTRY(name) {#name, name},
    PROGRAMS(ENTRY)
};
#define COUNT (sizeof programs / sizeof *programs)

static int list_main(char **arguments)
{
    (void)arguments;
    for (size_t i = 0; i < COUNT; i++)
        printf("%s\n", programs[i].name);
    return 0;
}

/* What the programs start by execve() of themselves; and --list, which prints all names. */
int echo_main(char **arguments);
int fresh_fpu_main(char **arguments);
int flood_main(char **arguments);

static const struct mode {
    const char *name;
    int (*run)(char **arguments);
} modes[] = {{"--echo", echo_main}, {"--fresh-fpu", fresh_fpu_main}, {"--flood", flood_main}, {"--list", list_main}};

const char *self_path;

/* Prints the program's notes as they come; keeps the first reason to fail that it or a descendant gave. */
static void relay(const struct program *program, FILE *output, char *reason, size_t size)
{
    char line[512];
    while (fgets(line, sizeof line, output)) {
        line[strcspn(line, "\n")] = 0;
        if (line[0] != '!')
            printf("# %s: %s\n", program->name, line + (line[0] == '#'));
        else if (!*reason)
            snprintf(reason, size, "%s", line + 1);
    }
}

static pid_t start(const struct program *program, int *output)
{
    int pipes[2];
    TRY(pipe(pipes));
    fflush(stdout);
    pid_t child = TRY(fork());
    if (child == 0) {
        TRY(dup2(pipes[1], STDOUT_FILENO));
        close(pipes[0]);
        close(pipes[1]);
        TRY(setpgid(0, 0));
        program->run();
        exit(0);
    }
    close(pipes[1]);
    *output = pipes[0];
    return child;
}

/* True when `child` ended in time; false after killing it and all that it started. */
static int finish(pid_t child, int *status)
{
    struct timespec limit = {.tv_sec = LONGEST_SECONDS};
    sigset_t ended;
    sigemptyset(&ended);
    sigaddset(&ended, SIGCHLD);
    while (waitpid(child, status, WNOHANG) != child)
        if (sigtimedwait(&ended, NULL, &limit) < 0 && errno == EAGAIN) {
            kill(-child, SIGKILL);
            waitpid(child, status, 0);
            return 0;
        }
    kill(-child, SIGKILL);
    return 1;
}

static void verdict(const struct program *program)
{
    char reason[512] = "";
    int output, status;
    sigset_t ended;
    sigemptyset(&ended);
    sigaddset(&ended, SIGCHLD);
    pid_t child = start(program, &output);
    TRY(sigprocmask(SIG_BLOCK, &ended, NULL));
    int in_time = finish(child, &status);
    TRY(sigprocmask(SIG_UNBLOCK, &ended, NULL));
    FILE *stream = fdopen(output, "r");
    relay(program, stream, reason, sizeof reason);
    fclose(stream);
    if (!*reason && !in_time)
        snprintf(reason, sizeof reason, "still running after %d s", LONGEST_SECONDS);
    else if (!*reason && WIFSIGNALED(status))
        snprintf(reason, sizeof reason, "killed by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    else if (!*reason && WEXITSTATUS(status))
        snprintf(reason, sizeof reason, "ended with status %d and gave no reason", WEXITSTATUS(status));
    if (*reason)
        printf("not ok %s: %s\n", program->name, reason);
    else
        printf("ok %s\n", program->name);
    fflush(stdout);
}

static int run_named(const char *name)
{
    for (size_t i = 0; i < COUNT; i++)
        if (!strcmp(programs[i].name, name)) {
            verdict(&programs[i]);
            return 1;
        }
    printf("not ok %s: no program has this name\n", name);
    return 1;
}

static int run_list(const char *list)
{
    char copy[1024], *rest = copy;
    int count = 0;
    snprintf(copy, sizeof copy, "%s", list);
    for (char *name; (name = strsep(&rest, ","));)
        count += run_named(name);
    return count;
}

int main(int argc, char **argv)
{
    const char *list = getenv("programs");
    int count = 0;
    self_path = strchr(argv[0], '/') ? argv[0] : "/proc/self/exe";
    for (size_t i = 0; argc > 1 && i < sizeof modes / sizeof *modes; i++)
        if (!strcmp(argv[1], modes[i].name))
            return modes[i].run(argv + 2);
    if (argc > 1)
        for (int i = 1; i < argc; i++)
            count += run_named(argv[i]);
    else if (list)
        count = run_list(list);
    else
        for (size_t i = 0; i < COUNT; i++)
            count += run_named(programs[i].name);
    printf("done: %d programs\n", count);
    return 0;
}
