/* A megabyte through a pseudo-terminal: numbered lines, so that a loss shows. */
#include "check.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#define LINE 64
#define LINES 16384
#define BLOCK 64 /* lines read or written in one go */

/* Line `number`: the number, then letters that depend on it; LINE bytes with the newline, no zero at the end. */
static void make_line(char line[LINE], unsigned number)
{
    char text[LINE + 1];
    int size = snprintf(text, sizeof text, "line %08u ", number);
    for (int i = size; i < LINE - 1; i++)
        text[i] = 'a' + (number * 7 + i) % 26;
    memcpy(line, text, LINE - 1);
    line[LINE - 1] = '\n';
}

/* --flood LINES: what the other end executes; it writes as fast as it can. */
int flood_main(char **arguments)
{
    unsigned lines = strtoul(arguments[0], NULL, 10);
    char block[BLOCK][LINE];
    for (unsigned number = 0; number < lines;) {
        unsigned count = 0;
        for (; count < BLOCK && number < lines; count++, number++)
            make_line(block[count], number);
        write_all(STDOUT_FILENO, block, count * LINE);
    }
    return 0;
}

static int open_master(void)
{
    int fd = open("/dev/ptmx", O_RDWR | O_NOCTTY);
    if (fd >= 0 && access("/dev/pts/ptmx", F_OK) == 0)
        return fd;
    if (mkdir("/dev/pts", 0755) == -1)
        TRY(access("/dev/pts", F_OK));
    TRY(mount("devpts", "/dev/pts", "devpts", 0, "ptmxmode=0666"));
    return TRY(open("/dev/pts/ptmx", O_RDWR | O_NOCTTY));
}

static void expect_lines(int fd)
{
    char expected[LINE], found[BLOCK][LINE];
    for (unsigned number = 0; number < LINES; number++) {
        if (number % BLOCK == 0)
            read_all(fd, found, sizeof found);
        make_line(expected, number);
        const char *line = found[number % BLOCK];
        CHECK(!memcmp(line, expected, LINE), "line %u came as %.*s", number, LINE - 1, line);
    }
}

static void send_all(int terminal)
{
    char arguments[2][16] = {"--flood", ""};
    snprintf(arguments[1], sizeof arguments[1], "%d", LINES);
    TRY(dup2(terminal, STDOUT_FILENO));
    execve(self_path, (char *[]){"flood", arguments[0], arguments[1], NULL}, environ);
    _exit(127);
}

void pty(void)
{
    int unlocked = 0, number, master = open_master();
    struct termios modes;
    struct winsize size = {.ws_row = 25, .ws_col = 80}, found;
    char name[32];
    TRY(ioctl(master, TIOCSPTLCK, &unlocked));
    TRY(ioctl(master, TIOCGPTN, &number));
    snprintf(name, sizeof name, "/dev/pts/%d", number);
    int terminal = TRY(open(name, O_RDWR | O_NOCTTY));
    TRY(tcgetattr(terminal, &modes));
    cfmakeraw(&modes);
    TRY(tcsetattr(terminal, TCSANOW, &modes));
    TRY(ioctl(master, TIOCSWINSZ, &size));
    TRY(ioctl(terminal, TIOCGWINSZ, &found));
    CHECK(found.ws_row == 25 && found.ws_col == 80, "the window is %d by %d", found.ws_row, found.ws_col);
    write_all(master, "answer\n", 7);
    char answer[8] = "";
    read_all(terminal, answer, 7);
    CHECK(!strcmp(answer, "answer\n"), "the terminal reads %s", answer);
    pid_t child = TRY(fork());
    if (child == 0)
        send_all(terminal);
    expect_lines(master);
    expect_exit(child, 0);
}
