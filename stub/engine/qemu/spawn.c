/* A process that is to die with its parent dies with the thread that started it. So all are started by one thread,
 * which lives as long as this process does. */
#include "core.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    enum { IDLE, ASKED, ANSWERED } state;
    pid_t owner, result;
    const char *program;
    char **argv;
    int errors, kept[8], n_kept;
} spawner = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static pid_t start_process(void)
{
    const pid_t parent = getpid(), pid = fork();
    if (pid != 0)
        return pid;
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setpgid(0, 0); /* an interrupt at the terminal is ours */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(127);
    const int nothing = open("/dev/null", O_RDWR);
    dup2(nothing, 0);
    dup2(nothing, 1);
    dup2(spawner.errors, 2);
    for (int i = 0; i < spawner.n_kept; i++)
        fcntl(spawner.kept[i], F_SETFD, 0);
    execv(spawner.program, spawner.argv);
    _exit(127);
}

static void *spawn_for_ever(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&spawner.lock);
    for (;;) {
        while (spawner.state != ASKED)
            pthread_cond_wait(&spawner.changed, &spawner.lock);
        spawner.result = start_process();
        spawner.state = ANSWERED;
        pthread_cond_broadcast(&spawner.changed);
    }
    return NULL;
}

/* Whether there is such a thread; a fork of this process has none of its own yet. No signal is that thread's. */
static int have_spawner(void)
{
    pthread_t thread;
    sigset_t all, before;
    if (spawner.owner == getpid())
        return 1;
    pthread_mutex_init(&spawner.lock, NULL);
    pthread_cond_init(&spawner.changed, NULL);
    spawner.state = IDLE;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int error = pthread_create(&thread, NULL, spawn_for_ever, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error)
        return errno = error, 0;
    pthread_detach(thread);
    spawner.owner = getpid();
    return 1;
}

/* spawn(program, arguments, errors, files): starts a program that dies with this one, and has the `files` open; its
 * stderr goes to the file `errors`. */
PyObject *spawn(PyObject *self, PyObject *args)
{
    const char *program;
    PyObject *list, *files;
    int errors;
    char *argv[64];
    (void)self;
    if (!PyArg_ParseTuple(args, "sO!iO!", &program, &PyTuple_Type, &list, &errors, &PyTuple_Type, &files))
        return NULL;
    const Py_ssize_t n = PyTuple_Size(list), n_kept = PyTuple_Size(files);
    if (n > 63 || n_kept > 8)
        return PyErr_SetString(PyExc_ValueError, "too many arguments"), NULL;
    for (Py_ssize_t i = 0; i < n; i++)
        if (!(argv[i] = PyBytes_AsString(PyTuple_GetItem(list, i))))
            return NULL;
    argv[n] = NULL;
    if (!have_spawner())
        return PyErr_SetFromErrno(PyExc_OSError);
    pthread_mutex_lock(&spawner.lock);
    spawner.program = program;
    spawner.argv = argv;
    spawner.errors = errors;
    spawner.n_kept = (int)n_kept;
    for (Py_ssize_t i = 0; i < n_kept; i++)
        spawner.kept[i] = (int)PyLong_AsLong(PyTuple_GetItem(files, i));
    spawner.state = ASKED;
    pthread_cond_broadcast(&spawner.changed);
    while (spawner.state != ANSWERED)
        pthread_cond_wait(&spawner.changed, &spawner.lock);
    const pid_t pid = spawner.result;
    spawner.state = IDLE;
    pthread_mutex_unlock(&spawner.lock);
    if (pid < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    return PyLong_FromLong(pid);
}
