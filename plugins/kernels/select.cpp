// gn_select: which variant runs a problem on a device, how, and why. Pure arithmetic; gn_deploy/plugin/select.py mirrors it.
#include <vector>

#include "message.h"
#include "units.h"

using namespace gn;

namespace {

// Costs are bytes of x that one multiprocessor could have read, with as many of y written, in the same time. Of 4,800
// choices for 33 layers timed on an H200, a multiprocessor moves 16 bytes of each in a nanosecond from and to memory,
// however many work; GPUs with slower memory move 4 and more, so the rate here is between. What waiting for each other
// costs is what those times are above that rate: all load, then all compute, then all store.
constexpr int64_t kCachedRate = 24, kMemoryRate = 12;
constexpr int64_t kBlockNs = 100;      // the barriers of a block
constexpr int64_t kClusterNs = 350;    // times the square of its blocks: large clusters do not fill the GPU
constexpr int64_t kTeamNs = 3500;      // of several teams: one may load while another stores
constexpr int64_t kAloneNs = 6000;     // of a single team; estimated, as is the next one, since no GPU has timed them yet
constexpr int64_t kAheadNs = 1500;     // of a round, beside that of what was not copied ahead of it
constexpr int64_t kLaunchNs = 3500;    // the second kernel begins when the first has drained
constexpr int64_t kCrowd = 4;          // blocks for each multiprocessor from which small ones are better
constexpr int64_t kChunkBytes = 8192;  // of a chunk at least: a vector for each of kThreads
constexpr int64_t kSliceBytes = 512;   // of a slice at least: a vector for each thread of a warp
// Rows of 64 bytes take 1.6 times as long as whole lines on an H200, as if 40 more were moved: nothing else was timed of
// widths. Memory moves sectors of 32 bytes; rows that begin anywhere waste half of one.
constexpr int64_t kRowBytes = 40, kSectorBytes = 32;

// Blocks that share more, and all that comes later in the order of preference, must save a tenth: so coarse is the
// estimate, and the simpler kernel waits for nobody.
bool clearly_less(int64_t cost, int64_t best) { return best == 0 || cost < best - best / 10; }

struct Candidate {
    gn_choice choice;
    int64_t cost;        // 0: not suited
    std::string reason;  // why not, or what it does
};

struct Question {
    gn_problem problem;
    gn_device device;
    Units units;    // of one width
    int64_t multiprocessors;
    bool cached;    // x and y fit half of the second-level cache together
    int64_t bytes;  // of x
    int64_t strain;  // bytes of whole lines that take as long as 1024 of a slice

    int64_t nanoseconds(int64_t time) const { return time * (cached ? kCachedRate : kMemoryRate); }
    // What the busiest multiprocessor does when `blocks` each do `work`.
    int64_t busiest(int64_t blocks, int64_t work) const { return ceil_div(blocks, multiprocessors) * work; }
    int64_t slice(int64_t steps) const { return steps * units.columns * kVectorBytes; }
    int64_t work(int64_t steps) const { return slice(steps) * strain / 1024; }
    // Of what a block tells the others, it reads everybody's.
    int64_t told(int64_t slices) const { return slices * units.groups * kPartialBytes; }
};

Candidate refused(const std::string &reason) { return Candidate{{}, 0, reason}; }

std::string number(int64_t n) { return std::to_string(n); }
std::string a_unit(const Question &q) { return "a unit of " + bytes_text(q.units.bytes); }

Candidate candidate(const Question &q, gn_variant variant, Tile tile, int64_t slices, int64_t blocks, int64_t cost) {
    gn_choice c{};
    c.variant = variant, c.vectors = tile.vectors, c.threads = tile.threads;
    c.slices = static_cast<int32_t>(slices), c.slab = static_cast<int32_t>(q.units.slab);
    c.units = q.units.count, c.blocks = blocks;
    const int64_t shared = shared_bytes(q.problem, q.units, variant, tile, slices);
    c.shared = static_cast<int32_t>(std::min<int64_t>(shared, kGrid));
    if (shared > kSharedBytes) return refused("its channels need " + bytes_text(shared) + " of shared memory");
    return Candidate{c, std::max<int64_t>(cost, 1), ""};
}

Candidate warp(const Question &q) {
    const Units &u = q.units;
    if (q.problem.layout == GN_NHWC) return refused("is for NCHW");
    for (int vectors : kWarpVectors) {
        if (u.steps > 32 * vectors) continue;
        const int64_t warps = std::min<int64_t>(kWarps, ceil_div(u.count, q.multiprocessors));
        const Tile tile{vectors, static_cast<int>(32 * warps)};
        Candidate c = candidate(q, GN_WARP, tile, 1, ceil_div(u.count, warps), q.busiest(u.count, q.work(u.steps)));
        if (!c.cost) return c;
        c.reason = number(u.count) + " units of " + bytes_text(u.bytes) + ", " + number(warps) + " to a block";
        return c;
    }
    const int64_t most = 32 * kVectorBytes * kWarpVectors[std::size(kWarpVectors) - 1];
    return refused(a_unit(q) + " does not fit " + bytes_text(most));
}

Candidate block(const Question &q) {
    const Units &u = q.units;
    if (u.column_slices > 1) return refused("a row of " + number(u.slab) + " channels is wider than a block");
    const bool many = u.count >= kCrowd * q.multiprocessors;
    const Tile tile = many ? small_tile_of(u, u.steps) : tile_of(u, u.steps);
    if (!tile.threads) {
        const int64_t most = steps_of_block(u, kVectors[std::size(kVectors) - 1]);
        return refused(a_unit(q) + " does not fit " + bytes_text(q.slice(most)));
    }
    const int64_t cost = q.busiest(u.count, q.work(u.steps)) + q.nanoseconds(kBlockNs);
    Candidate c = candidate(q, GN_BLOCK, tile, 1, u.count, cost);
    if (!c.cost) return c;
    c.reason = number(u.count) + " units of " + bytes_text(u.bytes) + " for " + number(q.multiprocessors) + " multiprocessors";
    return c;
}

Candidate cluster(const Question &q) {
    const Units &u = q.units;
    if (q.device.cluster_blocks < 2) return refused("compute capability 9.0 or later is needed");
    Candidate best = refused(a_unit(q) + " is too small to share");
    bool fits = false;
    for (int64_t size = u.column_slices; size <= q.device.cluster_blocks; size *= 2) {
        const int64_t rows = size / u.column_slices, steps = ceil_div(u.steps, rows);
        const Tile tile = tile_of(u, steps);
        if (!tile.threads) continue;
        fits = true;
        if (size < 2 || (rows - 1) * steps >= u.steps) continue;  // a block would have nothing
        if (u.count > kGrid / size) return refused("more blocks than a grid has");
        const int64_t cost = q.busiest(u.count * size, q.work(steps)) + q.nanoseconds(kClusterNs * size * size);
        if (!clearly_less(cost, best.cost)) continue;
        Candidate found = candidate(q, GN_CLUSTER, tile, size, u.count * size, cost);
        if (found.cost || !best.cost) best = found;
        if (found.cost) best.reason = number(size) + " blocks share " + a_unit(q) + ", " + number(u.count * size) + " blocks for " +
                      number(q.multiprocessors) + " multiprocessors";
    }
    if (fits) return best;
    const int64_t most = steps_of_block(u, kVectors[std::size(kVectors) - 1]);
    return refused(a_unit(q) + " does not fit " + number(q.device.cluster_blocks) + " blocks of " + bytes_text(q.slice(most)));
}

// Blocks of so many threads that the device holds at a time, at most: those of the largest tile, with the least of tables.
int64_t all_resident(const Question &q, int64_t of = kThreads) {
    const int64_t threads = whole_warps(of / q.units.columns * q.units.columns);
    const Tile largest{kVectors[std::size(kVectors) - 1], static_cast<int>(threads)};
    const bool rows = q.problem.layout == GN_NHWC;
    const int64_t shared = rows ? shared_bytes(q.problem, q.units, GN_TEAM, largest, 1) : kReservedBytes;
    return q.multiprocessors * resident(q.device, threads, shared);
}

// A counter of each team, and its slots: see Team in exchange.h.
int64_t team_words(int64_t teams, int64_t size, int64_t groups) {
    return teams * (kCounterStride + 2 * size * groups * kSlotWords);
}

// As much of the next unit as shared memory holds beside the blocks that must be resident.
void look_ahead(const Question &q, gn_choice &c) {
    if (q.device.compute_capability < kFirstWithCopies) return;
    const int64_t here = ceil_div(c.blocks, q.multiprocessors);
    const int64_t room = std::min<int64_t>(q.device.shared / here - 1024, q.device.shared_per_block) - c.shared;
    c.ahead = static_cast<int32_t>(std::min<int64_t>(c.vectors, std::max<int64_t>(0, room / (kVectorBytes * c.threads))));
    c.shared += c.ahead * c.threads * kVectorBytes;
}

// Teams of blocks of `threads`, which several tries improve on.
void team(const Question &q, int64_t threads, Candidate &best) {
    const Units &u = q.units;
    const int64_t all = all_resident(q, threads), most = threads / u.columns * kVectors[std::size(kVectors) - 1];
    const int64_t fewest = product(u.column_slices, ceil_div(u.steps, most), kGrid);
    const int64_t least = std::min(most, ceil_div(kSliceBytes, kVectorBytes * u.columns));
    for (int64_t teams = std::min(u.count, all / fewest); teams > 0; --teams) {
        const int64_t steps = std::max(least, ceil_div(u.steps, all / teams / u.column_slices));
        const int64_t size = ceil_div(u.steps, steps) * u.column_slices, rounds = ceil_div(u.count, teams);
        if (size < 2 || ceil_div(u.count, rounds) < teams) continue;  // as many rounds with fewer teams
        Candidate found = candidate(q, GN_TEAM, tile_of(u, steps, threads), size, teams * size, 1);
        if (!found.cost) {
            if (!best.cost) best = found;
            continue;
        }
        if (resident(q.device, found.choice.threads, found.choice.shared) * q.multiprocessors < teams * size) {
            if (!best.cost) best = refused("its tables leave room for too few blocks");
            continue;
        }
        found.choice.counters = static_cast<int32_t>(team_words(teams, size, u.groups));
        if (rounds > 1) look_ahead(q, found.choice);
        const int64_t first = teams == 1 ? kAloneNs : kTeamNs, vectors = found.choice.vectors, ahead = found.choice.ahead;
        const int64_t waits = first + (rounds - 1) * ((first - kAheadNs) * (vectors - ahead) / vectors + kAheadNs);
        found.cost = rounds * q.busiest(teams * size, q.work(steps) + q.told(size)) + q.nanoseconds(waits);
        if (best.cost && best.cost <= found.cost) continue;
        best = found;
        best.reason = number(teams) + (teams == 1 ? " team of " : " teams of ") + number(size) + " blocks, " +
                      number(rounds) + (rounds == 1 ? " round of units of " : " rounds of units of ") + bytes_text(u.bytes);
    }
}

// Small blocks first: where they do as well they are better, being out of step.
Candidate team(const Question &q) {
    const Units &u = q.units;
    if (!q.device.cooperative) return refused("the device has no cooperative launch");
    const int64_t all = all_resident(q), most = steps_of_block(u, kVectors[std::size(kVectors) - 1]);
    if (product(u.column_slices, ceil_div(u.steps, most), kGrid) > all)
        return refused(a_unit(q) + " does not fit " + number(all) + " blocks of " + bytes_text(q.slice(most)));
    Candidate best = refused(a_unit(q) + " is too small to share");
    for (const int64_t threads : {kThreads / 2, kThreads})
        if (u.columns <= threads) team(q, threads, best);
    return best;
}

Candidate split(const Question &q) {
    const Units &u = q.units;
    const int64_t wide = u.count * u.column_slices;
    const int64_t most = std::max<int64_t>(1, std::min(kChunks / u.column_slices, kGrid / wide));
    const int64_t threads = q.problem.layout == GN_NCHW ? nchw_split_threads(q.problem) : kThreads;
    const int64_t tile = threads / u.columns * kSplitVectors, least = ceil_div(kChunkBytes, kVectorBytes * u.columns);
    // Every block reads all chunks' parts, of several groups even: few.
    const int64_t wanted = std::max<int64_t>(1, (u.groups == 1 ? 2 : 1) * all_resident(q) / wide);
    const int64_t steps = std::max(least, ceil_div(u.steps, std::min(most, wanted)));
    const int64_t slices = ceil_div(u.steps, steps) * u.column_slices, blocks = u.count * slices;
    const int64_t rows = ceil_div(std::min(std::min(steps, tile), u.steps), kSplitVectors);

    // x is read twice: half as much again, and a third more for what the second pass, beginning at the end, does not find
    // in two thirds of the second-level cache (y needs the rest).
    const int64_t once = q.busiest(blocks, q.work(std::min(steps, u.steps)) + q.told(slices));
    const int64_t missing = std::max<int64_t>(0, q.bytes - q.device.l2 / 3 * 2) / (q.bytes / 1024 + 1);
    const int64_t again = once / 2 + once / 1024 * missing / 3;
    const int64_t cost = once + again + q.nanoseconds(kLaunchNs);
    Candidate c = candidate(q, GN_SPLIT, Tile{kSplitVectors, static_cast<int>(whole_warps(rows * u.columns))}, slices, blocks, cost);
    c.choice.workspace = blocks * u.groups * kPartialBytes;
    c.reason = number(slices) + (slices == 1 ? " chunk" : " chunks") + " of each of " + number(u.count) + " units of " + bytes_text(u.bytes);
    return c;
}

Question question(const gn_problem &p, const gn_device &device, int64_t slab) {
    Question q{p, device, units_of(p, slab), std::max(1, device.multiprocessors), false, 0, 1024};
    const int64_t size = element_bytes(p.dtype), width = q.units.columns * kVectorBytes;
    q.bytes = p.samples * p.positions * (p.layout == GN_NHWC ? p.pitch : p.channels) * size;
    q.cached = q.bytes <= device.l2 / 4;
    const bool whole = q.units.slabs == 1 && q.units.column_slices == 1;  // one row begins where the other ends
    const bool aligned = slab * size % kSectorBytes == 0 && p.pitch * size % kSectorBytes == 0;
    if (p.layout == GN_NHWC && !whole) q.strain += 1024 * (kRowBytes + (aligned ? 0 : kSectorBytes / 2)) / width;
    return q;
}

// One for each width of the slabs, the narrowest first.
std::vector<Question> questions(const gn_problem &p, const gn_device &device) {
    std::vector<Question> all;
    for (int64_t slab = slab_of(p); slab > 0; slab = wider(p, slab)) all.push_back(question(p, device, slab));
    return all;
}

// The cheapest width; for a block the narrowest of those that do as well, as it makes most units.
Candidate best_width(const std::vector<Question> &widths, Candidate (*variant)(const Question &)) {
    Candidate best = variant(widths[0]);
    for (size_t i = 1; i < widths.size(); ++i) {
        const Candidate c = variant(widths[i]);
        const bool less = variant == block ? clearly_less(c.cost, best.cost) : c.cost < best.cost;
        if (c.cost && (!best.cost || less)) best = c;
    }
    if (best.cost && widths[0].problem.layout == GN_NHWC)
        best.reason += ", rows of " + number(best.choice.slab * element_bytes(widths[0].problem.dtype)) + " bytes";
    return best;
}

bool empty(const gn_problem &p) { return p.samples == 0 || p.channels == 0 || p.positions == 0; }

}  // namespace

extern "C" void gn_room(const gn_problem *largest, const gn_device *device, int64_t *workspace, int32_t *counters) {
    *workspace = 0, *counters = 0;
    if (gn_check(largest, nullptr, 0) != GN_OK || empty(*largest)) return;
    for (const Question &q : questions(*largest, *device)) {
        const int64_t wide = q.units.count * q.units.column_slices, all = all_resident(q);
        const int64_t small = q.units.columns <= kThreads / 2 ? all_resident(q, kThreads / 2) : all;
        const int64_t chunks = 2 * all + wide;                                   // see `split`
        const int64_t teams = std::max<int64_t>(1, std::max(all, small) / 2);    // of two or more
        *workspace = std::max(*workspace, chunks * q.units.groups * kPartialBytes);
        *counters = std::max(*counters, static_cast<int32_t>(team_words(teams, 2, q.units.groups)));
    }
}

extern "C" int gn_select(const gn_problem *problem, const gn_device *device, int variant, gn_choice *choice, char *message,
                         size_t size) {
    const int status = gn_check(problem, message, size);
    if (status != GN_OK) return status;
    if (variant >= GN_VARIANTS) return tell(GN_NOT_SUITED, "there is no variant " + number(variant), message, size);
    const gn_problem &p = *problem;
    *choice = gn_choice{};
    if (empty(p)) {
        choice->variant = variant < 0 ? static_cast<int>(GN_SPLIT) : variant;
        return tell(GN_OK, "nothing to compute", message, size);
    }
    const std::vector<Question> widths = questions(p, *device);
    Candidate (*const variants[GN_VARIANTS])(const Question &) = {warp, block, cluster, team, split};
    Candidate all[GN_VARIANTS];
    for (int i = 0; i < GN_VARIANTS; ++i) all[i] = best_width(widths, variants[i]);

    int best = variant;
    if (variant < 0)
        for (int i = 0; i < GN_VARIANTS; ++i)
            if (all[i].cost && clearly_less(all[i].cost, best < 0 ? 0 : all[best].cost)) best = i;
    const Candidate &chosen = all[best];
    const std::string name = gn_variant_name(best);
    if (!chosen.cost) return tell(GN_NOT_SUITED, name + ": " + chosen.reason, message, size);
    *choice = chosen.choice;
    if (variant >= 0) return tell(GN_OK, name + " as asked: " + chosen.reason, message, size);
    std::string text;
    for (int i = 0; i < best; ++i) {
        text += std::string(gn_variant_name(i)) + ": ";
        if (!all[i].cost) {
            text += all[i].reason + "; ";
        } else {
            const int64_t tenths = all[i].cost / (chosen.cost / 10 + 1);
            text += number(tenths / 10) + "." + number(tenths % 10) + " times as long by estimate (" + all[i].reason + "); ";
        }
    }
    return tell(GN_OK, text + name + " chosen: " + chosen.reason, message, size);
}
