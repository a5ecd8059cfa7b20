/* The FIFO ABI from the guest's side: its pages, and an event loop that takes ports out of the queues. */
#pragma once
#include "channels.h"

enum { PENDING = 1u << 31, MASKED = 1 << 30, LINKED = 1 << 29, BUSY = 1 << 28, LINK = (1 << 17) - 1 };
enum { PRIORITIES = 16, USUAL = 7, WORDS = PAGE / 4 };

struct control {
    u32 ready, unused, head[PRIORITIES];
};
extern volatile struct control *control;
extern volatile u32 *event_word; /* by port, of the array's first page */

sword init_control(word mfn, u32 offset);
sword expand_array(word mfn);
sword set_priority(u32 port, u32 priority);
/* The control block; the array's first page, where the builder's ports are masked. Events stay masked. */
void control_block(void);
void first_array(void);
void fifo(void);

/* The ports in the order in which the event loop took them. It runs in each upcall, or when it is called. */
enum { MOST_TAKEN = 256 };
extern u32 taken[MOST_TAKEN], n_taken;
void take_all(void);
void deliver(void); /* unmask events, let an upcall come, mask them again */
void check_taken(const char *name, const u32 *ports, u32 count);
/* A check that these were taken, in this order. */
#define TAKEN(name, ...) check_taken(name, (const u32[]){__VA_ARGS__}, sizeof((const u32[]){__VA_ARGS__}) / 4)
