// COUNT processes, one after the other: each is forked and ends at once. The two lines are what is measured between.
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void)
{
    puts("forks begin");
    fflush(stdout);
    for (int i = 0; i < COUNT; i++) {
        const pid_t child = fork();
        if (child == 0)
            _exit(0);
        if (child < 0 || waitpid(child, NULL, 0) != child) {
            puts("a fork failed");
            return 1;
        }
    }
    puts("forks end");
    return 0;
}
