// Runs kernels without a GPU: each block's threads are fibers that change places at barriers. In every stretch between two barriers
// they run in another order, so that what relies on an order, or on a barrier that isn't there, comes out wrong.

#define _XOPEN_SOURCE 700
#include <pthread.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <ucontext.h>

#include "emulator.h"

_Thread_local struct dpo_dimensions dpo_thread, dpo_block, dpo_block_size;

#define MOST_THREADS 1024
#define STACK (64 * 1024)

struct fiber {
    ucontext_t context;
    // Where it waits, and for whom it may be asked to go on.
    jmp_buf waiting;
    // None before it was first started.
    void *stack;
    int at_barrier;
};

static _Thread_local struct fiber *fibers;
static _Thread_local int current = -1;
static _Thread_local jmp_buf scheduler;
static _Thread_local void (*body)(const void *);
static _Thread_local const void *parameters;

static void fail(const char *what) {
    fprintf(stderr, "the emulator of CUDA kernels: %s\n", what);
    abort();
}

// Back to the scheduler until it wants this fiber again.
static void pause_fiber(void) {
    if (!_setjmp(fibers[current].waiting)) _longjmp(scheduler, 1);
}

// A fiber runs one thread of a block after another.
static void fiber_main(void) {
    for (;;) {
        body(parameters);
        fibers[current].at_barrier = 0;
        pause_fiber();
    }
}

void dpo_barrier(void) {
    if (current < 0) fail("a kernel that is declared without barriers has one");
    fibers[current].at_barrier = 1;
    pause_fiber();
}

static void run_fiber(int index) {
    struct fiber *fiber = &fibers[index];
    current = index;
    dpo_thread.x = (unsigned)index;
    if (_setjmp(scheduler)) return;
    if (fiber->stack) _longjmp(fiber->waiting, 1);
    fiber->stack = malloc(STACK);
    if (!fiber->stack || getcontext(&fiber->context)) fail("no memory for a fiber");
    fiber->context.uc_stack.ss_sp = fiber->stack;
    fiber->context.uc_stack.ss_size = STACK;
    fiber->context.uc_link = 0;
    makecontext(&fiber->context, fiber_main, 0);
    setcontext(&fiber->context);
    fail("a fiber does not start");
}

static void run_block(unsigned threads, unsigned block) {
    for (unsigned phase = 0;; phase++) {
        unsigned waiting = 0;
        for (unsigned i = 0; i < threads; i++) {
            unsigned turned = (i + 37 * (phase + block)) % threads;
            unsigned index = (phase + block) % 2 ? threads - 1 - turned : turned;
            run_fiber((int)index);
            waiting += (unsigned)fibers[index].at_barrier;
        }
        if (waiting == 0) break;
        if (waiting != threads) fail("only some threads of a block reached a barrier");
    }
    current = -1;
}

static pthread_key_t of_thread;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void release(void *ended) {
    for (int i = 0; i < MOST_THREADS; i++) free(((struct fiber *)ended)[i].stack);
    free(ended);
}

static void make_key(void) {
    if (pthread_key_create(&of_thread, release)) fail("no room for what a thread keeps");
}

// Fibers are kept for as long as the thread of the machine that they run on.
static void make_fibers(void) {
    pthread_once(&once, make_key);
    fibers = calloc(MOST_THREADS, sizeof *fibers);
    if (!fibers || pthread_setspecific(of_thread, fibers)) fail("no memory for fibers");
}

void dpo_launch(const struct dpo_kernel *kernel, const void *arguments, unsigned blocks) {
    if (kernel->threads > MOST_THREADS) fail("a block has too many threads");
    if (kernel->barriers && !fibers) make_fibers();
    body = kernel->body;
    parameters = arguments;
    dpo_block_size.x = kernel->threads;
    for (unsigned block = 0; block < blocks; block++) {
        dpo_block.x = block;
        if (kernel->barriers) {
            run_block(kernel->threads, block);
        } else {
            for (unsigned thread = 0; thread < kernel->threads; thread++) {
                dpo_thread.x = thread;
                kernel->body(arguments);
            }
        }
    }
}
