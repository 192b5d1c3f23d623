// In the place of the kernels: what they would have been asked, kept for a test to look at.
#include <stdio.h>

#include "../../plugins/kernels/gn.h"

static gn_problem problem;
static gn_choice choice;
static gn_buffers buffers;
static void *stream;
static int launches, status;

extern "C" {
int gn_enqueue(const gn_problem *p, const gn_choice *c, const gn_buffers *b, void *s, char *message, size_t size) {
    problem = *p, choice = *c, buffers = *b, stream = s;
    ++launches;
    if (status != GN_OK) snprintf(message, size, "refused by the test");
    return status;
}
int gn_query_device(int, gn_device *, char *, size_t) { return GN_LAUNCH_FAILED; }

void test_status(int next) { status = next; }
int test_launches(gn_problem *p, gn_choice *c, gn_buffers *b, void **s) {
    *p = problem, *c = choice, *b = buffers, *s = stream;
    return launches;
}
}
