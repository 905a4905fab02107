/* Units: rows side by side, several ciphertexts each way, grids, several units and maps in one call, and small memory; against integer
 * arithmetic on tiny rings, and with their noise at N = 4096. */
#include "product.h"

#include "linear/units.h"

/* One map with a tensor of inputs, encrypted unit by unit. */
typedef struct job {
    hemi_linear_layout l;
    hemi_grid grid;
    const hemi_grid *g; /* NULL: rows */
    size_t rows, units, in_numbers, out_numbers;
    int16_t *w; /* outputs x taps x inputs */
    double *bias;
    uint64_t delta;
    double norm2;
    int32_t *x;
    int64_t *want;
    uint8_t *request, *reply;
    size_t in_stride, out_stride, sent, kept;
    uint32_t *in_at, *out_at;
    size_t *index;
    int64_t *phase;
    double *got; /* phases of the output tensor; NAN: not there */
} job;

#define IN_BITS  44u
#define OUT_BITS 44u

static void reference_rows(job *j) {
    for (size_t r = 0; r < j->rows; r++)
        for (uint32_t o = 0; o < j->l.outputs; o++) {
            int64_t sum = 0;
            for (uint32_t c = 0; c < j->l.inputs; c++)
                sum += (int64_t)j->w[(size_t)o * j->l.inputs + c] * j->x[r * j->l.inputs + c];
            j->want[r * j->l.outputs + o] = sum;
        }
}

/* By the definition in linear/grid.h. */
static void reference_grid(job *j) {
    const hemi_grid *g = j->g;
    const uint32_t inputs = hemi_grid_inputs(g), in_step = g->in_step_y * g->in_step_x;
    for (uint32_t oc = 0; oc < g->out_channels; oc++)
        for (uint32_t y = 0; y < g->out_height; y++)
            for (uint32_t x = 0; x < g->out_width; x++) {
                const uint32_t number = (oc * g->out_step_y + y % g->out_step_y) * g->out_step_x + x % g->out_step_x;
                int64_t sum = 0;
                for (uint32_t tap = 0; tap < g->taps_y * g->taps_x; tap++)
                    for (uint32_t c = 0; c < inputs; c++) {
                        const int64_t i = (int64_t)(y / g->out_step_y) + tap / g->taps_x + g->origin_y,
                                      k = (int64_t)(x / g->out_step_x) + tap % g->taps_x + g->origin_x;
                        const int64_t py = i * g->in_step_y + c % in_step / g->in_step_x, px = k * g->in_step_x + c % g->in_step_x;
                        if (py < 0 || px < 0 || py >= g->in_height || px >= g->in_width) continue;
                        sum += (int64_t)j->w[((size_t)number * g->taps_y * g->taps_x + tap) * inputs + c] *
                               j->x[((size_t)(c / in_step) * g->in_height + (size_t)py) * g->in_width + (size_t)px];
                    }
                j->want[((size_t)oc * g->out_height + y) * g->out_width + x] = sum;
            }
}

static uint32_t number_of(const job *j, size_t at) { /* which bias an output has */
    if (!j->g) return (uint32_t)(at % j->l.outputs);
    const uint32_t x = (uint32_t)(at % j->g->out_width), y = (uint32_t)(at / j->g->out_width % j->g->out_height);
    const uint32_t oc = (uint32_t)(at / j->g->out_width / j->g->out_height);
    return (oc * j->g->out_step_y + y % j->g->out_step_y) * j->g->out_step_x + x % j->g->out_step_x;
}

static void job_open(job *j, const hemi_linear_layout *l, const hemi_grid *g, size_t rows, int w_max, int x_max, bool bias,
                     const hemi_params *params, test_rng *rng) {
    *j = (job){.l = *l, .rows = rows};
    if (g) {
        j->grid = *g;
        j->g = &j->grid;
    }
    const size_t weights = (size_t)l->outputs * l->taps_y * l->taps_x * l->inputs;
    j->units = g ? hemi_units_of_sample(l, g) : hemi_units_of_rows(l, rows);
    j->in_numbers = g ? (size_t)g->in_channels * g->in_height * g->in_width : rows * l->inputs;
    j->out_numbers = g ? (size_t)g->out_channels * g->out_height * g->out_width : rows * l->outputs;
    j->w = hemi_alloc(weights, sizeof *j->w);
    j->x = hemi_alloc(j->in_numbers, sizeof *j->x);
    j->want = hemi_alloc(j->out_numbers, sizeof *j->want);
    j->got = hemi_alloc(j->out_numbers, sizeof *j->got);
    j->sent = hemi_linear_input_positions(l, NULL);
    j->kept = hemi_linear_output_positions(l, NULL);
    j->in_at = hemi_alloc(j->sent, sizeof *j->in_at);
    j->out_at = hemi_alloc(j->kept, sizeof *j->out_at);
    (void)hemi_linear_input_positions(l, j->in_at);
    (void)hemi_linear_output_positions(l, j->out_at);
    j->index = hemi_alloc(j->sent > j->kept ? j->sent : j->kept, sizeof *j->index);
    j->phase = hemi_alloc(j->kept, sizeof *j->phase);
    j->in_stride = HEMI_SEED_BYTES + hemi_packed_bytes(j->sent, IN_BITS);
    j->out_stride = hemi_packed_bytes(l->n, OUT_BITS) + hemi_packed_bytes(j->kept, OUT_BITS);
    j->request = hemi_alloc(j->units * l->in_blocks, j->in_stride);
    j->reply = hemi_alloc(j->units * l->out_blocks, j->out_stride);
    for (size_t i = 0; i < weights; i++) {
        j->w[i] = (int16_t)((int)test_below(rng, 2 * (uint64_t)w_max + 1) - w_max);
        j->norm2 += (double)j->w[i] * j->w[i] / l->outputs;
    }
    for (size_t i = 0; i < j->in_numbers; i++) j->x[i] = (int32_t)test_below(rng, 2 * (uint64_t)x_max + 1) - x_max;
    if (bias) j->bias = hemi_alloc(l->outputs, sizeof *j->bias);
    for (uint32_t o = 0; bias && o < l->outputs; o++) j->bias[o] = (double)test_below(rng, 2001) - 1000;
    if (g)
        reference_grid(j);
    else
        reference_rows(j);
    const double bound = (double)w_max * x_max * l->inputs * l->taps_y * l->taps_x + 1000;
    j->delta = (uint64_t)((double)params->q / 2.1 / bound);
}

static void job_close(job *j) {
    void *blocks[] = {j->w,      j->bias,   j->x,     j->want,  j->got, j->in_at,
                      j->out_at, j->index, j->phase, j->request, j->reply};
    for (size_t i = 0; i < TEST_COUNT(blocks); i++) hemi_free(blocks[i]);
}

static void job_encrypt(job *j, const hemi_secret_key *sk) {
    int32_t *message = hemi_alloc(j->sent, sizeof *message);
    for (size_t u = 0; u < j->units; u++)
        for (uint32_t b = 0; b < j->l.in_blocks; b++) {
            uint8_t *at = j->request + (u * j->l.in_blocks + b) * j->in_stride;
            hemi_unit_inputs(j->index, &j->l, j->g, j->rows, u, b);
            for (size_t i = 0; i < j->sent; i++) message[i] = j->index[i] == HEMI_UNIT_NOTHING ? 0 : j->x[j->index[i]];
            ASSERT_OK(hemi_secret_encrypt(sk, message, j->sent, j->delta, j->in_at, j->sent, IN_BITS, at, at + HEMI_SEED_BYTES, ERR));
        }
    hemi_free(message);
}

static void job_multiply(job *j, const hemi_linear *map, const hemi_evaluation_keys *keys, bool bare, hemi_team *team) {
    const hemi_linear_input in = {j->request, j->in_stride, IN_BITS};
    const hemi_linear_output out = {j->reply, j->out_stride, OUT_BITS, OUT_BITS, false};
    ASSERT_OK((bare ? hemi_linear_multiply_bare : hemi_linear_multiply)(&map, 1, keys, in, &out, j->units, team, ERR));
}

/* Every number of the output comes out of exactly one unit. */
static void job_decrypt(job *j, const hemi_secret_key *sk) {
    for (size_t i = 0; i < j->out_numbers; i++) j->got[i] = NAN;
    for (size_t u = 0; u < j->units; u++)
        for (uint32_t b = 0; b < j->l.out_blocks; b++) {
            const uint8_t *at = j->reply + (u * j->l.out_blocks + b) * j->out_stride;
            ASSERT_OK(hemi_secret_decrypt(sk, at, OUT_BITS, at + hemi_packed_bytes(j->l.n, OUT_BITS), OUT_BITS, j->out_at, j->kept,
                                          j->phase, ERR));
            hemi_unit_outputs(j->index, &j->l, j->g, j->rows, u, b);
            for (size_t i = 0; i < j->kept; i++) {
                if (j->index[i] == HEMI_UNIT_NOTHING) continue;
                assert_true(j->index[i] < j->out_numbers && isnan(j->got[j->index[i]]));
                j->got[j->index[i]] = (double)j->phase[i];
            }
        }
    for (size_t i = 0; i < j->out_numbers; i++) assert_true(isnan(j->got[i]) == 0);
}

static double error_at(const job *j, size_t i) {
    const double bias = j->bias ? j->bias[number_of(j, i)] : 0;
    return j->got[i] - (double)j->delta * ((double)j->want[i] + bias);
}

static void check_same(const hemi_linear_layout *a, const hemi_linear_layout *b) {
    assert_true(a->params == b->params && a->inputs == b->inputs && a->outputs == b->outputs && a->s == b->s && a->fan == b->fan);
    assert_true(a->rows == b->rows && a->tile_y == b->tile_y && a->tile_x == b->tile_x && a->pitch == b->pitch);
    assert_true(a->taps_y == b->taps_y && a->taps_x == b->taps_x && a->in_blocks == b->in_blocks && a->out_blocks == b->out_blocks);
    assert_true(a->block_inputs == b->block_inputs && a->block_outputs == b->block_outputs && a->direct == b->direct);
    assert_true(a->babies == b->babies && a->groups == b->groups);
    assert_memory_equal(a->group, b->group, a->groups * sizeof *a->group);
}

static void check_exact(const ring_keys *r, const hemi_linear_layout *l, const hemi_grid *g, size_t rows, test_rng *rng) {
    job j;
    hemi_linear *map;
    const hemi_linear_memory memory = test_below(rng, 2) ? HEMI_LINEAR_SMALL : HEMI_LINEAR_FAST;
    job_open(&j, l, g, rows, 127, 127, test_below(rng, 2), l->params, rng);
    ASSERT_OK(hemi_linear_new(&map, r->p.ctx, l, j.w, j.bias, j.delta, memory, NULL, ERR));
    job_encrypt(&j, r->p.sk);
    job_multiply(&j, map, r->keys, test_below(rng, 4) == 0, NULL);
    job_decrypt(&j, r->p.sk);
    for (size_t i = 0; i < j.out_numbers; i++)
        if (fabs(error_at(&j, i)) > 0.3 * (double)j.delta)
            fail_msg("N = %u, %u x %u, S = %u, fan %u, rows %u, tile %u x %u, blocks %u, %u, babies %u, K = %u: output %zu is off by %.3f", l->n,
                     l->inputs, l->outputs, l->s, l->fan, l->rows, l->tile_y, l->tile_x, l->in_blocks, l->out_blocks, l->babies,
                     l->group[0].k, i, error_at(&j, i) / (double)j.delta);
    hemi_linear_free(map);
    job_close(&j);
}

/* Rows side by side and one by one, inputs and outputs beyond N. */
static void rows_of_tiny_rings(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    ring_keys r;
    size_t layouts = 0, packed = 0, blocks = 0;
    ring_open(&r, 4, false);
    for (uint32_t d = 1; d <= 40; d += d < 18 ? 1 : 7)
        for (uint32_t m = 1; m <= 40; m += (m < 18 ? 1u : 7u) + (test_quick() ? 2u : 0u))
            for (int full = 0; full < 2; full++) {
                hemi_linear_layout l;
                const hemi_linear_choice c = {.rows = full ? HEMI_LINEAR_ROWS_FULL : 1};
                ASSERT_OK(hemi_linear_layout_rows(&l, &r.p.own, d, m, &c, ERR));
                hemi_linear_layout again;
                const hemi_linear_choice stated = hemi_linear_layout_choice(&l);
                ASSERT_OK(hemi_linear_layout_rows(&again, &r.p.own, d, m, &stated, ERR));
                check_same(&l, &again);
                check_exact(&r, &l, NULL, 1 + test_below(&rng, 2 * l.rows + 2), &rng);
                layouts++;
                packed += l.rows > 1;
                blocks += l.in_blocks > 1 && l.out_blocks > 1;
            }
    printf("  %zu layouts, %zu packed, %zu of several ciphertexts\n", layouts, packed, blocks);
    assert_true(packed > 50 && blocks > 10);
    ring_close(&r);
}

static void grids_of_a_tiny_ring(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    ring_keys r;
    size_t tiled = 0, steps = 0, count = test_quick() ? 60 : 400;
    ring_open(&r, 5, false);
    for (size_t i = 0; i < count;) {
        hemi_grid g = {.in_channels = 1 + (uint32_t)test_below(&rng, 5),
                       .in_height = 1 + (uint32_t)test_below(&rng, 7),
                       .in_width = 1 + (uint32_t)test_below(&rng, 7),
                       .out_channels = 1 + (uint32_t)test_below(&rng, 6),
                       .out_height = 1 + (uint32_t)test_below(&rng, 7),
                       .out_width = 1 + (uint32_t)test_below(&rng, 7),
                       .in_step_y = 1 + (uint32_t)test_below(&rng, 2),
                       .in_step_x = 1 + (uint32_t)test_below(&rng, 2),
                       .out_step_y = 1 + (uint32_t)test_below(&rng, 2),
                       .out_step_x = 1 + (uint32_t)test_below(&rng, 2),
                       .taps_y = 1 + (uint32_t)test_below(&rng, 3),
                       .taps_x = 1 + (uint32_t)test_below(&rng, 3),
                       .origin_y = (int32_t)test_below(&rng, 5) - 2,
                       .origin_x = (int32_t)test_below(&rng, 5) - 2};
        hemi_linear_layout l, again;
        const hemi_linear_choice c = {.s = test_below(&rng, 3) ? 0 : 1u << test_below(&rng, 4)};
        const hemi_status status = hemi_linear_layout_grid(&l, &r.p.own, &g, &c, ERR);
        if (status != HEMI_OK) { /* the taps do not fit beside so many numbers */
            assert_status(status, HEMI_ERR_SHAPE);
            assert_true(c.s != 0);
            continue;
        }
        const hemi_linear_choice stated = hemi_linear_layout_choice(&l);
        ASSERT_OK(hemi_linear_layout_grid(&again, &r.p.own, &g, &stated, ERR));
        check_same(&l, &again);
        check_exact(&r, &l, &g, 1, &rng);
        tiled += hemi_units_of_sample(&l, &g) > 1;
        steps += g.in_step_y > 1 || g.out_step_x > 1;
        i++;
    }
    printf("  %zu grids, %zu in tiles, %zu with steps\n", count, tiled, steps);
    assert_true(tiled > count / 40 && steps > count / 40);
    ring_close(&r);
}

/* However units, maps, threads and memory are combined: the same bytes, but for re-randomisation. */
static void ways_of_computing_agree(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    ring_keys r;
    hemi_team *team = hemi_team_new(3);
    ring_open(&r, 7, false);
    static const uint32_t shapes[][3] = {{20, 40, 30}, {32, 128, 12}, {100, 100, 200}, {300, 50, 50}, {3, 2, 4}};
    for (size_t c = 0; c < TEST_COUNT(shapes); c++)
        for (int full = 0; full < 2; full++) {
            job j[2];
            hemi_linear *map[2], *small;
            hemi_linear_layout l[2];
            uint8_t *alone[2];
            const hemi_linear_choice first = {.rows = full ? HEMI_LINEAR_ROWS_FULL : 1};
            ASSERT_OK(hemi_linear_layout_rows(&l[0], &r.p.own, shapes[c][0], shapes[c][1], &first, ERR));
            const hemi_linear_choice second = {.s = l[0].s, .rows = l[0].rows, .fan = l[0].fan};
            ASSERT_OK(hemi_linear_layout_rows(&l[1], &r.p.own, shapes[c][0], shapes[c][2], &second, ERR));
            const size_t rows = 5 * l[0].rows;
            for (size_t i = 0; i < 2; i++) {
                job_open(&j[i], &l[i], NULL, rows, 127, 127, true, &r.p.own, &rng);
                ASSERT_OK(hemi_linear_new(&map[i], r.p.ctx, &l[i], j[i].w, j[i].bias, j[0].delta, i && c % 2 ? HEMI_LINEAR_SMALL : HEMI_LINEAR_FAST,
                                          i ? team : NULL, ERR));
                alone[i] = hemi_alloc(j[i].units * l[i].out_blocks, j[i].out_stride);
            }
            job_encrypt(&j[0], r.p.sk);
            assert_int_equal(j[0].in_stride, j[1].in_stride);
            for (size_t i = 0; i < 2; i++) /* unit by unit */
                for (size_t u = 0; u < j[0].units; u++) {
                    const hemi_linear_input in = {j[0].request + u * l[0].in_blocks * j[0].in_stride, j[0].in_stride, IN_BITS};
                    const hemi_linear_output out = {alone[i] + u * l[i].out_blocks * j[i].out_stride, j[i].out_stride, OUT_BITS, OUT_BITS, false};
                    const hemi_linear *one = map[i];
                    ASSERT_OK(hemi_linear_multiply_bare(&one, 1, r.keys, in, &out, 1, NULL, ERR));
                }
            for (int threads = 0; threads < 2; threads++) { /* all units of both maps */
                const hemi_linear_input in = {j[0].request, j[0].in_stride, IN_BITS};
                hemi_linear_output out[2];
                for (size_t i = 0; i < 2; i++) {
                    memset(j[i].reply, 0, j[i].units * l[i].out_blocks * j[i].out_stride);
                    out[i] = (hemi_linear_output){j[i].reply, j[i].out_stride, OUT_BITS, OUT_BITS, false};
                }
                const hemi_linear *both[2] = {map[0], map[1]};
                ASSERT_OK(hemi_linear_multiply_bare(both, 2, r.keys, in, out, j[0].units, threads ? team : NULL, ERR));
                for (size_t i = 0; i < 2; i++) assert_memory_equal(alone[i], j[i].reply, j[i].units * l[i].out_blocks * j[i].out_stride);
            }
            ASSERT_OK(hemi_linear_new(&small, r.p.ctx, &l[0], j[0].w, j[0].bias, j[0].delta, HEMI_LINEAR_SMALL, team, ERR));
            assert_true(3 * hemi_linear_bytes(small) == hemi_linear_bytes(map[0]));
            for (int threads = 0; threads < 2; threads++) {
                memset(j[0].reply, 0, j[0].units * l[0].out_blocks * j[0].out_stride);
                job_multiply(&j[0], small, r.keys, true, threads ? team : NULL);
                assert_memory_equal(alone[0], j[0].reply, j[0].units * l[0].out_blocks * j[0].out_stride);
            }
            job_multiply(&j[0], small, r.keys, false, NULL);
            assert_memory_not_equal(alone[0], j[0].reply, j[0].units * l[0].out_blocks * j[0].out_stride);
            hemi_linear_free(small);
            for (size_t i = 0; i < 2; i++) {
                hemi_linear_free(map[i]);
                hemi_free(alone[i]);
                job_close(&j[i]);
            }
        }
    hemi_team_free(team);
    ring_close(&r);
}

/* Small memory takes 16 bits a coefficient, and 32 where those do not do. */
static void large_weights_in_small_memory(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    ring_keys r;
    ring_open(&r, 6, false);
    hemi_linear_layout l;
    hemi_linear *fast, *small;
    job j;
    ASSERT_OK(test_layout(&l, &r.p.own, 60, 60, 0, ERR));
    job_open(&j, &l, NULL, 1, 32767, 127, false, &r.p.own, &rng);
    ASSERT_OK(hemi_linear_new(&fast, r.p.ctx, &l, j.w, NULL, j.delta, HEMI_LINEAR_FAST, NULL, ERR));
    ASSERT_OK(hemi_linear_new(&small, r.p.ctx, &l, j.w, NULL, j.delta, HEMI_LINEAR_SMALL, NULL, ERR));
    assert_true(3 * hemi_linear_bytes(small) == 2 * hemi_linear_bytes(fast));
    job_encrypt(&j, r.p.sk);
    uint8_t *other = hemi_alloc(1, j.out_stride);
    job_multiply(&j, fast, r.keys, true, NULL);
    memcpy(other, j.reply, j.out_stride);
    job_multiply(&j, small, r.keys, true, NULL);
    assert_memory_equal(other, j.reply, j.out_stride);
    hemi_free(other);
    hemi_linear_free(fast);
    hemi_linear_free(small);
    job_close(&j);
    ring_close(&r);
}

/* Inputs of different layouts cannot be shared; a grid that fits nowhere is refused with a reason. */
static void refusals(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    ring_keys r;
    ring_open(&r, 5, false);
    hemi_linear_layout l[2];
    job j[2];
    hemi_linear *map[2];
    for (uint32_t i = 0; i < 2; i++) {
        ASSERT_OK(test_layout(&l[i], &r.p.own, 5 + i, 20, 0, ERR));
        job_open(&j[i], &l[i], NULL, 1, 127, 127, false, &r.p.own, &rng);
        ASSERT_OK(hemi_linear_new(&map[i], r.p.ctx, &l[i], j[i].w, NULL, 1, HEMI_LINEAR_FAST, NULL, ERR));
    }
    const hemi_linear *both[2] = {map[0], map[1]};
    const hemi_linear_output out[2] = {{j[0].reply, j[0].out_stride, OUT_BITS, OUT_BITS, false}, {j[1].reply, j[1].out_stride, OUT_BITS, OUT_BITS, false}};
    const hemi_linear_input in = {j[0].request, j[0].in_stride, IN_BITS};
    assert_status(hemi_linear_multiply(both, 2, r.keys, in, out, 1, NULL, ERR), HEMI_ERR_ARGUMENT);
    assert_status(hemi_linear_multiply(both, 0, r.keys, in, out, 1, NULL, ERR), HEMI_ERR_ARGUMENT);
    const hemi_grid wide = {1, 1, 100, 1, 1, 100, 1, 1, 1, 1, 1, 33, 0, 0, 1, 1}; /* 33 taps in a ring of 32 */
    assert_status(hemi_linear_layout_grid(&l[0], &r.p.own, &wide, NULL, ERR), HEMI_ERR_SHAPE);
    const hemi_linear_choice bad[] = {{.s = 3}, {.s = 64}, {.rows = 2}, {.fan = 2}};
    const hemi_grid good = {1, 8, 8, 1, 8, 8, 1, 1, 1, 1, 3, 3, -1, -1, 1, 1};
    for (size_t i = 0; i < TEST_COUNT(bad); i++)
        assert_status(hemi_linear_layout_grid(&l[0], &r.p.own, &good, &bad[i], ERR), i < 2 ? HEMI_ERR_ARGUMENT : HEMI_ERR_FORMAT);
    for (size_t i = 0; i < 2; i++) {
        hemi_linear_free(map[i]);
        job_close(&j[i]);
    }
    ring_close(&r);
}

/* ---- noise at N = 4096 */

static void noise_of_units(void **state) {
    (void)state;
    static const struct {
        uint32_t inputs, outputs;
        size_t rows;
        hemi_grid grid; /* in_channels 0: rows */
    } cases[] = {{768, 768, 8, {0}},
                 {100, 300, 33, {0}},
                 {10, 10, 40, {0}},
                 {5000, 300, 1, {0}},
                 {300, 5000, 1, {0}},
                 {0, 0, 1, {64, 8, 8, 64, 8, 8, 1, 1, 1, 1, 3, 3, -1, -1, 1, 1}},
                 {0, 0, 1, {3, 64, 64, 64, 32, 32, 2, 2, 1, 1, 4, 4, -2, -2, 1, 1}},
                 {0, 0, 1, {16, 9, 9, 8, 18, 18, 1, 1, 2, 2, 2, 2, -1, -1, 1, 1}},
                 {0, 0, 1, {1, 28, 28, 6, 24, 24, 1, 1, 1, 1, 5, 5, 0, 0, 1, 1}}};
    test_rng rng = test_rng_new();
    party p;
    uint32_t t[HEMI_FAMILY_MAX];
    party_open(&p, hemi_params_by_name("L4096"), test_table());
    hemi_evaluation_keys *keys = test_keys(p.sk, t, test_family(p.ctx, t));
    hemi_team *team = hemi_team_new(2);
    for (size_t c = 0; c < TEST_COUNT(cases); c += test_quick() ? 2 : 1) {
        const hemi_grid *g = cases[c].grid.in_channels ? &cases[c].grid : NULL;
        const hemi_linear_choice full = {.rows = HEMI_LINEAR_ROWS_FULL};
        hemi_linear_layout l;
        hemi_linear *map;
        job j;
        moments m = {0};
        if (g)
            ASSERT_OK(hemi_linear_layout_grid(&l, p.ctx->params, g, NULL, ERR));
        else
            ASSERT_OK(hemi_linear_layout_rows(&l, p.ctx->params, cases[c].inputs, cases[c].outputs, &full, ERR));
        job_open(&j, &l, g, cases[c].rows, 127, 127, true, p.ctx->params, &rng);
        ASSERT_OK(hemi_linear_new(&map, p.ctx, &l, j.w, j.bias, j.delta, HEMI_LINEAR_FAST, team, ERR));
        job_encrypt(&j, p.sk);
        job_multiply(&j, map, keys, false, team);
        job_decrypt(&j, p.sk);
        const double predicted =
            sqrt(hemi_linear_noise_variance(&l, j.norm2, IN_BITS) + hemi_linear_switch_variance(&l, OUT_BITS, OUT_BITS));
        for (size_t i = 0; i < j.out_numbers; i++) moments_add(&m, error_at(&j, i) / predicted);
        const double ratio = sqrt(moments_variance(&m));
        printf("  %4u x %4u, %u x %u taps: S %4u, blocks %u %u, %zu units, B %2u: std %.4f of predicted, largest %.2f\n", l.inputs,
               l.outputs, l.taps_y, l.taps_x, l.s, l.in_blocks, l.out_blocks, j.units, l.babies, ratio, m.largest);
        assert_true(m.largest < PRODUCT_SIGMAS);
        /* one key alone: its rounding errors are the same in all results, so these are not independent */
        if (ratio > 1.2 || ratio < 1 / 1.2) fail_msg("standard deviation %.3f of the predicted one", ratio);
        hemi_linear_free(map);
        job_close(&j);
    }
    hemi_team_free(team);
    hemi_evaluation_keys_free(keys);
    party_close(&p);
}

/* ---- precise sets: rotations of inputs over qP, by keys of two digits each */

static void precise_maps_of_a_tiny_ring(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    size_t layouts = 0, two_groups = 0;
    party p = {.own = test_params(4, hemi_params_by_name("precise")->q, hemi_params_by_name("precise")->special)};
    p.own.baby_digits = 2;
    p.own.digit_bits = 24;
    party_open(&p, NULL, test_table());
    for (uint32_t d = 1; d <= 20; d += test_quick() ? 5u : 1u)
        for (uint32_t m = 1; m <= 20; m += test_quick() ? 4u : 1u)
            for (int full = 0; full < 2; full++)
                for (uint32_t babies = 0; babies <= 16; babies = babies ? 2 * babies : 1) {
                    hemi_linear_layout l;
                    const hemi_linear_choice c = {.rows = full ? HEMI_LINEAR_ROWS_FULL : 1, .babies = babies};
                    const hemi_status status = hemi_linear_layout_rows(&l, &p.own, d, m, &c, ERR);
                    if (status != HEMI_OK) {
                        assert_true(babies > 0 && status == HEMI_ERR_ARGUMENT);
                        continue;
                    }
                    uint32_t t[HEMI_AUTOMORPHISMS_MAX];
                    ring_keys r = {.p = p, .keys = test_keys(p.sk, t, hemi_linear_automorphisms(&l, t))};
                    check_exact(&r, &l, NULL, 1 + test_below(&rng, 2 * l.rows + 2), &rng);
                    hemi_evaluation_keys_free(r.keys);
                    layouts++;
                    two_groups += l.groups == 2 && l.babies > 1;
                }
    printf("  %zu layouts, %zu in two groups\n", layouts, two_groups);
    assert_true(layouts > 50 && two_groups > 0);
    party_close(&p);
}

/* Weights of 12 bits at 768 x 768: the noise as predicted, and below 2^-18 of the largest output; small memory gives the same bytes. */
static void noise_of_the_precise_set(void **state) {
    (void)state;
    test_rng rng = test_rng_new();
    party p;
    uint32_t t[HEMI_AUTOMORPHISMS_MAX];
    hemi_team *team = hemi_team_new(2);
    hemi_linear_layout l;
    hemi_linear *map, *small;
    job j;
    moments m = {0};
    double largest = 0;
    party_open(&p, hemi_params_by_name("precise"), test_table());
    ASSERT_OK(hemi_linear_layout_rows(&l, p.ctx->params, 768, 768, NULL, ERR));
    hemi_evaluation_keys *keys = test_keys(p.sk, t, hemi_linear_automorphisms(&l, t));
    job_open(&j, &l, NULL, 4, 2047, 127, true, p.ctx->params, &rng);
    double bound = 1;
    for (size_t o = 0; o < 768; o++) {
        double sum = 0;
        for (size_t c = 0; c < 768; c++) sum += abs(j.w[o * 768 + c]);
        bound = fmax(bound, 127 * sum + 1000);
    }
    j.delta = (uint64_t)((double)p.ctx->q->m.p / 2.04 / bound);
    ASSERT_OK(hemi_linear_new(&map, p.ctx, &l, j.w, j.bias, j.delta, HEMI_LINEAR_FAST, team, ERR));
    ASSERT_OK(hemi_linear_new(&small, p.ctx, &l, j.w, j.bias, j.delta, HEMI_LINEAR_SMALL, team, ERR));
    job_encrypt(&j, p.sk);
    uint8_t *bytes = hemi_alloc(j.units, j.out_stride);
    job_multiply(&j, small, keys, true, team);
    memcpy(bytes, j.reply, j.units * j.out_stride);
    job_multiply(&j, map, keys, true, NULL);
    assert_memory_equal(bytes, j.reply, j.units * j.out_stride);
    job_multiply(&j, map, keys, false, team);
    job_decrypt(&j, p.sk);
    const double predicted =
        sqrt(hemi_linear_noise_variance(&l, j.norm2, IN_BITS) + hemi_linear_switch_variance(&l, OUT_BITS, OUT_BITS));
    for (size_t i = 0; i < j.out_numbers; i++) {
        moments_add(&m, error_at(&j, i) / predicted);
        largest = fmax(largest, fabs((double)j.want[i]));
    }
    const double ratio = sqrt(moments_variance(&m)), error = log2(ratio * predicted / (double)j.delta / largest);
    printf("  768 x 768, 12 bits: S %u, B %u, K %u: std %.4f of predicted, 2^%.2f of the largest output\n", l.s, l.babies, l.group[0].k, ratio, error);
    assert_true(m.largest < PRODUCT_SIGMAS && ratio < 1.15 && ratio > 1 / 1.15 && error < -18);
    hemi_free(bytes);
    hemi_linear_free(map);
    hemi_linear_free(small);
    job_close(&j);
    hemi_team_free(team);
    hemi_evaluation_keys_free(keys);
    party_close(&p);
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_of_tiny_rings),   cmocka_unit_test(grids_of_a_tiny_ring),
        cmocka_unit_test(ways_of_computing_agree), cmocka_unit_test(large_weights_in_small_memory),
        cmocka_unit_test(refusals),             cmocka_unit_test(noise_of_units),
        cmocka_unit_test(precise_maps_of_a_tiny_ring), cmocka_unit_test(noise_of_the_precise_set),
    };
    return TEST_RUN_PER_TABLE("units", tests);
}
