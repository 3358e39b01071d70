// The layers of small convnets on a CPU: convolution, depthwise convolution, and what follows one (ReLU, batch norm,
// dropout) in one pass. All images are in channels_last: n x height x width x channels, in float32; what follows a
// convolution and pooling take bfloat16 as well.
//
// PyTorch's kernels are made for hundreds of channels: with 8 or 16 they leave most of a vector empty, and each
// elementwise layer reads and writes a whole tensor. Work is divided into parts that do not depend on the number of
// threads, and sums are added part by part in order, so that results do not depend on it either.

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define LANES 8   // floats of a vector: 256 bits
#define CHUNK 48  // output pixels that are worked on while they, and what makes them, are in the first cache
typedef float vec __attribute__((vector_size(4 * LANES), aligned(4)));

static inline long min_long(long a, long b) { return a < b ? a : b; }
static inline long round_up(long a, long b) { return (a + b - 1) / b * b; }
static inline vec load(const float *at) { return *(const vec *)at; }
static inline void store(float *at, vec value) { *(vec *)at = value; }
static inline vec splat(float value) { return value - (vec){0}; }

// `count` floats, and zeros.
static inline vec load_part(const float *at, long count) {
  vec value = {0};
  if (count >= LANES) return load(at);
  memcpy(&value, at, count * sizeof(float));
  return value;
}

// Takes `count` floats of `value`.
static inline void store_vec(float *at, vec value, long count) {
  if (count >= LANES)
    store(at, value);
  else
    memcpy(at, &value, count * sizeof(float));
}

#ifdef __AVX512F__
typedef float pair __attribute__((vector_size(8 * LANES), aligned(4)));  // two vectors in a register of 512 bits

static inline void store_pair(float *at, pair value, long count) {
  if (count >= 2 * LANES) {
    *(pair *)at = value;
    return;
  }
  vec halves[2];
  memcpy(halves, &value, sizeof value);
  store_vec(at, halves[0], count);
  if (count > LANES) store_vec(at + LANES, halves[1], count - LANES);
}
#endif

typedef union {
  float value;
  uint32_t bits;
} Float;

// Bfloat16 is the upper half of a float32.
static void widen(const uint16_t *from, float *to, long count) {
#pragma omp simd
  for (long i = 0; i < count; i++) to[i] = (Float){.bits = (uint32_t)from[i] << 16}.value;
}

// To the nearest, of two as near to the even one.
static void narrow(const float *from, uint16_t *to, long count) {
#pragma omp simd
  for (long i = 0; i < count; i++) {
    uint32_t bits = (Float){.value = from[i]}.bits, rounded = bits + 0x7fff + (bits >> 16 & 1);
    to[i] = (from[i] != from[i] ? 0x7fc00000 : rounded) >> 16;
  }
}

// `count` floats from element `at` of a tensor on: where they lie, or widened into `room`.
static inline const float *floats(const void *tensor, long at, long count, float *room, int bf16) {
  if (!bf16) return (const float *)tensor + at;
  widen((const uint16_t *)tensor + at, room, count);
  return room;
}

// Where to write floats that belong there; put() then brings them from `room` into the tensor.
static inline float *place(void *tensor, long at, float *room, int bf16) { return bf16 ? room : (float *)tensor + at; }

static inline void put(void *tensor, long at, long count, const float *room, int bf16) {
  if (bf16) narrow(room, (uint16_t *)tensor + at, count);
}

// ---------------------------------------------------------------------------------------------------- convolution

// Square kernels, stride 1. `pad` may exceed the kernel: the data's gradient is a convolution with wide borders.
typedef struct {
  long n, height, width, in, out, kernel, pad;
} Shape;

typedef struct {
  long height, width;           // of the output
  long padded_width, padded;    // of an image with its borders; floats in one
  long images, pixels;          // of a group: as many images as make a few hundred output pixels
  long groups;
  long lanes, blocks;           // output channels are taken `lanes` at a time, `blocks` times
  long row;                     // floats that one row of the kernel covers
} Plan;

static Plan plan(Shape s) {
  Plan p;
  p.height = s.height + 2 * s.pad - s.kernel + 1;
  p.width = s.width + 2 * s.pad - s.kernel + 1;
  p.padded_width = s.width + 2 * s.pad;
  p.padded = (s.height + 2 * s.pad) * p.padded_width * s.in;
  long wanted = 128 / (p.height * p.width);
  p.images = wanted < 1 ? 1 : min_long(wanted, s.n);
  p.pixels = p.images * p.height * p.width;
  p.groups = (s.n + p.images - 1) / p.images;
  p.lanes = s.out > LANES ? 2 * LANES : LANES;
  p.blocks = (s.out + p.lanes - 1) / p.lanes;
  p.row = s.kernel * s.in;
  return p;
}

// Where the window of each output pixel of a group begins, in floats from the group's first image.
static long *window_offsets(Shape s, Plan p) {
  long *offsets = malloc(p.pixels * sizeof(long)), *next = offsets;
  for (long image = 0; image < p.images; image++)
    for (long y = 0; y < p.height; y++)
      for (long x = 0; x < p.width; x++) *next++ = image * p.padded + (y * p.padded_width + x) * s.in;
  return offsets;
}

// The images with a border of zeros, or as they are where there is no border. `room` holds images * padded floats.
static const float *with_border(const float *images, long count, Shape s, Plan p, float *room) {
  if (!s.pad) return images;
  long line = s.width * s.in, padded_line = p.padded_width * s.in;
  memset(room, 0, count * p.padded * sizeof(float));
  for (long image = 0; image < count; image++)
    for (long y = 0; y < s.height; y++)
      memcpy(room + image * p.padded + (y + s.pad) * padded_line + s.pad * s.in,
             images + (image * s.height + y) * line, line * sizeof(float));
  return room;
}

// PIXELS output pixels x VECTORS vectors of channels, all in registers. `row` floats of the image, `kernel` times, each
// time `line` floats further on.
#define DEFINE_TILE(NAME, PIXELS, VEC, VECTORS)                                                                       \
  static inline void NAME(const float *image, const long *offsets, const float *weight, const float *bias,           \
                          float *output, long out, long channels, long kernel, long row, long line) {                \
    enum { SIZE = sizeof(VEC) / sizeof(float) };                                                                     \
    const float *window[PIXELS];                                                                                     \
    VEC sum[PIXELS][VECTORS];                                                                                        \
    for (int i = 0; i < PIXELS; i++) {                                                                               \
      window[i] = image + offsets[i];                                                                                \
      for (int v = 0; v < VECTORS; v++) sum[i][v] = *(const VEC *)(bias + v * SIZE);                                 \
    }                                                                                                                \
    for (long y = 0; y < kernel; y++) {                                                                              \
      for (long j = 0; j < row; j++, weight += VECTORS * SIZE) {                                                     \
        VEC w[VECTORS];                                                                                              \
        for (int v = 0; v < VECTORS; v++) w[v] = *(const VEC *)(weight + v * SIZE);                                  \
        for (int i = 0; i < PIXELS; i++)                                                                             \
          for (int v = 0; v < VECTORS; v++) sum[i][v] += window[i][j] * w[v];                                        \
      }                                                                                                              \
      for (int i = 0; i < PIXELS; i++) window[i] += line;                                                            \
    }                                                                                                                \
    for (int i = 0; i < PIXELS; i++)                                                                                 \
      for (int v = 0; v < VECTORS; v++)                                                                              \
        if (channels > v * SIZE) store_##VEC(output + i * out + v * SIZE, sum[i][v], channels - v * SIZE);           \
  }
DEFINE_TILE(narrow_tile_8, 8, vec, 1)
DEFINE_TILE(narrow_tile_1, 1, vec, 1)
#ifdef __AVX512F__
DEFINE_TILE(wide_tile_12, 12, pair, 1)
DEFINE_TILE(wide_tile_6, 6, pair, 1)
DEFINE_TILE(wide_tile_1, 1, pair, 1)
#else
DEFINE_TILE(wide_tile_6, 6, vec, 2)
DEFINE_TILE(wide_tile_1, 1, vec, 2)
#endif

// As many of `left` pixels as a tile takes, and how many those are. `lanes` channels: LANES, or twice as many.
static inline long tile(long left, long lanes, const float *image, const long *offsets, const float *weight,
                        const float *bias, float *output, long out, long channels, long kernel, long row, long line) {
#define TILE(NAME, PIXELS)                                                                                            \
  if (left >= PIXELS) {                                                                                               \
    NAME(image, offsets, weight, bias, output, out, channels, kernel, row, line);                                     \
    return PIXELS;                                                                                                    \
  }
  if (lanes == LANES) {
    TILE(narrow_tile_8, 8)
    TILE(narrow_tile_1, 1)
  }
#ifdef __AVX512F__
  TILE(wide_tile_12, 12)
#endif
  TILE(wide_tile_6, 6)
  TILE(wide_tile_1, 1)
#undef TILE
  return 0;
}

// `weight` is packed by pack(). `bias` may be null.
static void convolve(const float *images, const float *weight, const float *bias, float *output, Shape s) {
  Plan p = plan(s);
  long *offsets = window_offsets(s, p), line = p.padded_width * s.in;
  float *biases = calloc(p.blocks * p.lanes, sizeof(float));
  if (bias) memcpy(biases, bias, s.out * sizeof(float));
#pragma omp parallel
  {
    float *room = s.pad ? malloc(p.images * p.padded * sizeof(float)) : NULL;
#pragma omp for schedule(static)
    for (long group = 0; group < p.groups; group++) {
      long first = group * p.images, count = min_long(p.images, s.n - first);
      const float *image = with_border(images + first * s.height * s.width * s.in, count, s, p, room);
      float *result = output + first * p.height * p.width * s.out;
      long pixels = count * p.height * p.width;
      for (long chunk = 0; chunk < pixels; chunk += CHUNK)
        for (long block = 0; block < p.blocks; block++) {
          long channel = block * p.lanes, channels = min_long(p.lanes, s.out - channel);
          const float *w = weight + block * s.kernel * p.row * p.lanes;
          for (long pixel = chunk, end = min_long(chunk + CHUNK, pixels); pixel < end;)
            pixel += tile(end - pixel, p.lanes, image, offsets + pixel, w, biases + channel,
                          result + pixel * s.out + channel, s.out, channels, s.kernel, p.row, line);
        }
    }
    free(room);
  }
  free(offsets);
  free(biases);
}

// Weights (out, in, kernel, kernel), of any strides, as blocks x kernel x kernel x in x lanes. `transposed` gives those
// of the data's gradient: in and out change places, the kernel is turned by 180 degrees.
static float *pack(const float *weight, const long *strides, Shape s, int transposed) {
  Plan p = plan(s);
  long taps = s.kernel * s.kernel;
  float *packed = calloc(p.blocks * taps * s.in * p.lanes, sizeof(float));
  for (long out = 0; out < s.out; out++)
    for (long tap = 0; tap < taps; tap++)
      for (long in = 0; in < s.in; in++) {
        long from = transposed ? taps - 1 - tap : tap, y = from / s.kernel, x = from % s.kernel;
        long at = (transposed ? in * strides[0] + out * strides[1] : out * strides[0] + in * strides[1]);
        packed[((out / p.lanes * taps + tap) * s.in + in) * p.lanes + out % p.lanes] =
            weight[at + y * strides[2] + x * strides[3]];
      }
  return packed;
}

// ------------------------------------------------------------------------------------ 3x3 convolution by Winograd

// F(2x2, 3x3) of Lavin and Gray (arXiv 1509.09308): a tile of 2x2 output pixels takes 16 products, one at each "point",
// instead of 36. The points are sums and differences of the 4x4 pixels under the tile.
#define POINTS 16
#define IN_CACHE 65536          // floats of points: what the second cache holds while other things pass through it
#define FOR_SUMS (2 * IN_CACHE) // sums over tiles are read and written once a batch, so that larger ones pay

typedef struct {
  long rows, columns, tiles;  // of an image; of all
  long batch, batches;        // tiles that are worked on together
  long in, out;               // floats that a tile's channels take
} Grid;

// `room`: floats for the points of a batch.
static Grid grid(Shape s, long room) {
  Plan p = plan(s);
  Grid g;
  g.rows = (p.height + 1) / 2;
  g.columns = (p.width + 1) / 2;
  g.tiles = s.n * g.rows * g.columns;
  g.in = round_up(s.in, LANES);
  g.out = p.blocks * p.lanes;
  long fit = room / (POINTS * (g.in + g.out));
  g.batch = fit < 12 ? 12 : fit / 6 * 6;
  g.batches = (g.tiles + g.batch - 1) / g.batch;
  return g;
}

// Whether the products saved are worth the sums: with many channels, and few tiles that reach beyond the output.
static int by_winograd(Shape s) {
  if (s.kernel != 3 || s.in < 16 || s.out < 16 || s.in * s.out < 512) return 0;
  Plan p = plan(s);
  Grid g = grid(s, IN_CACHE);
  return 3 * POINTS * g.rows * g.columns < 2 * 9 * p.height * p.width;
}

// Of 4x4 pixels: first along the columns, then along the rows.
static inline void input_points(vec from[4][4], vec to[4][4]) {
  vec rows[4][4];
  for (int j = 0; j < 4; j++) {
    rows[0][j] = from[0][j] - from[2][j];
    rows[1][j] = from[1][j] + from[2][j];
    rows[2][j] = from[2][j] - from[1][j];
    rows[3][j] = from[1][j] - from[3][j];
  }
  for (int i = 0; i < 4; i++) {
    to[i][0] = rows[i][0] - rows[i][2];
    to[i][1] = rows[i][1] + rows[i][2];
    to[i][2] = rows[i][2] - rows[i][1];
    to[i][3] = rows[i][1] - rows[i][3];
  }
}

// `points`: 16 x batch x in. `zeros` stands for the pixels beyond the image.
static void points_of_images(const float *images, const float *zeros, float *points, long first, long count, Shape s,
                             Grid g) {
  for (long tile = 0; tile < count; tile++) {
    long at = first + tile, image = at / (g.rows * g.columns);
    long top = at / g.columns % g.rows * 2 - s.pad, left = at % g.columns * 2 - s.pad;
    const float *pixel[4][4];
    for (long i = 0; i < 4; i++)
      for (long j = 0; j < 4; j++) {
        long y = top + i, x = left + j;
        int inside = 0 <= y && y < s.height && 0 <= x && x < s.width;
        pixel[i][j] = inside ? images + ((image * s.height + y) * s.width + x) * s.in : zeros;
      }
    for (long channel = 0; channel < s.in; channel += LANES) {
      vec from[4][4], to[4][4];
      for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) from[i][j] = load_part(pixel[i][j] + channel, s.in - channel);
      input_points(from, to);
      for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) store(points + ((4 * i + j) * g.batch + tile) * g.in + channel, to[i][j]);
    }
  }
}

// Kernels packed by pack() -> blocks x 16 x in x lanes.
static float *points_of_kernels(const float *packed, Shape s, Plan p) {
  float *points = malloc(p.blocks * POINTS * s.in * p.lanes * sizeof(float));
  vec half = splat(0.5f);
  for (long block = 0; block < p.blocks; block++)
    for (long at = 0; at < s.in * p.lanes; at += LANES) {
      vec rows[4][3], to[4];
      for (int x = 0; x < 3; x++) {
        vec k[3];
        for (int y = 0; y < 3; y++) k[y] = load(packed + (block * 9 + 3 * y + x) * s.in * p.lanes + at);
        rows[0][x] = k[0];
        rows[1][x] = half * (k[0] + k[1] + k[2]);
        rows[2][x] = half * (k[0] - k[1] + k[2]);
        rows[3][x] = k[2];
      }
      for (int i = 0; i < 4; i++) {
        to[0] = rows[i][0];
        to[1] = half * (rows[i][0] + rows[i][1] + rows[i][2]);
        to[2] = half * (rows[i][0] - rows[i][1] + rows[i][2]);
        to[3] = rows[i][2];
        for (int j = 0; j < 4; j++) store(points + (block * POINTS + 4 * i + j) * s.in * p.lanes + at, to[j]);
      }
    }
  return points;
}

// `points`: 16 x batch x out. `bias` has a value for each of them, zero beyond the channels.
static void output_of_points(const float *points, const float *bias, float *output, long first, long count, Shape s,
                             Plan p, Grid g) {
  for (long tile = 0; tile < count; tile++) {
    long at = first + tile, image = at / (g.rows * g.columns);
    long y = at / g.columns % g.rows * 2, x = at % g.columns * 2;
    float *result = output + ((image * p.height + y) * p.width + x) * s.out;
    int right = x + 1 < p.width, below = y + 1 < p.height;
    for (long channel = 0; channel < s.out; channel += LANES) {
      vec rows[2][4], b = load(bias + channel);
      for (int j = 0; j < 4; j++) {
        vec m[4];
        for (int i = 0; i < 4; i++) m[i] = load(points + ((4 * i + j) * g.batch + tile) * g.out + channel);
        rows[0][j] = m[0] + m[1] + m[2];
        rows[1][j] = m[1] - m[2] - m[3];
      }
      for (int i = 0; i < 1 + below; i++) {
        float *to = result + i * p.width * s.out + channel;
        store_vec(to, rows[i][0] + rows[i][1] + rows[i][2] + b, s.out - channel);
        if (right) store_vec(to + s.out, rows[i][1] - rows[i][2] - rows[i][3] + b, s.out - channel);
      }
    }
  }
}

// As convolve().
static void convolve_by_points(const float *images, const float *weight, const float *bias, float *output, Shape s) {
  Plan p = plan(s);
  Grid g = grid(s, IN_CACHE);
  float *kernels = points_of_kernels(weight, s, p);
  float *zeros = calloc(g.in + g.out, sizeof(float)), *biases = calloc(g.out, sizeof(float));
  long *offsets = malloc(g.batch * sizeof(long));
  for (long tile = 0; tile < g.batch; tile++) offsets[tile] = tile * g.in;
  if (bias) memcpy(biases, bias, s.out * sizeof(float));
#pragma omp parallel
  {
    float *points = malloc(POINTS * g.batch * (g.in + g.out) * sizeof(float));
    float *products = points + POINTS * g.batch * g.in;
#pragma omp for schedule(static)
    for (long batch = 0; batch < g.batches; batch++) {
      long first = batch * g.batch, count = min_long(g.batch, g.tiles - first);
      points_of_images(images, zeros, points, first, count, s, g);
      for (long point = 0; point < POINTS; point++)
        for (long block = 0; block < p.blocks; block++) {
          const float *from = points + point * g.batch * g.in;
          const float *w = kernels + (block * POINTS + point) * s.in * p.lanes;
          float *to = products + point * g.batch * g.out + block * p.lanes;
          for (long i = 0; i < count;)
            i += tile(count - i, p.lanes, from, offsets + i, w, zeros, to + i * g.out, g.out, p.lanes, 1, s.in, 0);
        }
      output_of_points(products, biases, output, first, count, s, p, g);
    }
    free(points);
  }
  free(kernels);
  free(zeros);
  free(biases);
  free(offsets);
}

void conv_forward(const float *images, const float *weight, const long *strides, const float *bias, float *output,
                  Shape s) {
  float *packed = pack(weight, strides, s, 0);
  (by_winograd(s) ? convolve_by_points : convolve)(images, packed, bias, output, s);
  free(packed);
}

// `s` is the forward convolution's.
void conv_backward_data(const float *grad, const float *weight, const long *strides, float *grad_images, Shape s) {
  Plan p = plan(s);
  Shape turned = {s.n, p.height, p.width, s.out, s.in, s.kernel, s.kernel - 1 - s.pad};
  float *packed = pack(weight, strides, turned, 1);
  (by_winograd(turned) ? convolve_by_points : convolve)(grad, packed, NULL, grad_images, turned);
  free(packed);
}

// ROWS floats of a kernel's row x VECTORS vectors of output channels, summed over the pixels of a group.
#define DEFINE_SUMS(NAME, ROWS, VEC, VECTORS)                                                                         \
  static inline void NAME(const float *image, const long *offsets, const float *grad, long stride, long pixels,      \
                          float *sums, long width) {                                                                 \
    enum { SIZE = sizeof(VEC) / sizeof(float) };                                                                     \
    VEC sum[ROWS][VECTORS];                                                                                          \
    for (int j = 0; j < ROWS; j++)                                                                                   \
      for (int v = 0; v < VECTORS; v++) sum[j][v] = *(const VEC *)(sums + j * width + v * SIZE);                     \
    for (long pixel = 0; pixel < pixels; pixel++) {                                                                  \
      const float *window = image + offsets[pixel];                                                                  \
      VEC g[VECTORS];                                                                                                \
      for (int v = 0; v < VECTORS; v++) g[v] = *(const VEC *)(grad + pixel * stride + v * SIZE);                     \
      for (int j = 0; j < ROWS; j++)                                                                                 \
        for (int v = 0; v < VECTORS; v++) sum[j][v] += window[j] * g[v];                                             \
    }                                                                                                                \
    for (int j = 0; j < ROWS; j++)                                                                                   \
      for (int v = 0; v < VECTORS; v++) *(VEC *)(sums + j * width + v * SIZE) = sum[j][v];                           \
  }
DEFINE_SUMS(narrow_sums_8, 8, vec, 1)
DEFINE_SUMS(narrow_sums_1, 1, vec, 1)
#ifdef __AVX512F__
DEFINE_SUMS(wide_sums_12, 12, pair, 1)
DEFINE_SUMS(wide_sums_6, 6, pair, 1)
DEFINE_SUMS(wide_sums_4, 4, pair, 1)
DEFINE_SUMS(wide_sums_1, 1, pair, 1)
#else
DEFINE_SUMS(wide_sums_6, 6, vec, 2)
DEFINE_SUMS(wide_sums_4, 4, vec, 2)
DEFINE_SUMS(wide_sums_1, 1, vec, 2)
#endif

// As tile(), of `left` floats of a kernel's row. 8 and 10 are taken as 4 and 4 or 6, not as 6 and single ones.
static inline long add_sums(long left, long lanes, const float *image, const long *offsets, const float *grad,
                            long stride, long pixels, float *sums, long width) {
#define SUMS(NAME, ROWS, FITS)                                                                                        \
  if (left >= ROWS && (FITS)) {                                                                                       \
    NAME(image, offsets, grad, stride, pixels, sums, width);                                                          \
    return ROWS;                                                                                                      \
  }
  if (lanes == LANES) {
    SUMS(narrow_sums_8, 8, 1)
    SUMS(narrow_sums_1, 1, 1)
  }
#ifdef __AVX512F__
  SUMS(wide_sums_12, 12, 1)
#endif
  SUMS(wide_sums_6, 6, left != 8 && left != 10)
  SUMS(wide_sums_4, 4, 1)
  SUMS(wide_sums_1, 1, 1)
#undef SUMS
  return 0;
}

#define PARTS 16  // of the sums over pixels

// `points`: 16 x batch x out, of the gradients of each tile's four pixels. Adds those to `bias`, of `out` floats.
static void points_of_gradients(const float *grad, const float *zeros, float *points, float *bias, long first,
                                long count, Shape s, Plan p, Grid g) {
  for (long tile = 0; tile < count; tile++) {
    long at = first + tile, image = at / (g.rows * g.columns);
    long y = at / g.columns % g.rows * 2, x = at % g.columns * 2;
    const float *pixel[2][2];
    for (long i = 0; i < 2; i++)
      for (long j = 0; j < 2; j++)
        pixel[i][j] = y + i < p.height && x + j < p.width
                          ? grad + ((image * p.height + y + i) * p.width + x + j) * s.out
                          : zeros;
    for (long channel = 0; channel < s.out; channel += LANES) {
      vec from[2][2], rows[4][2];
      for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++) from[i][j] = load_part(pixel[i][j] + channel, s.out - channel);
      store(bias + channel, load(bias + channel) + (from[0][0] + from[0][1] + from[1][0] + from[1][1]));
      for (int j = 0; j < 2; j++) {
        rows[0][j] = from[0][j];
        rows[1][j] = from[0][j] + from[1][j];
        rows[2][j] = from[0][j] - from[1][j];
        rows[3][j] = -from[1][j];
      }
      for (int i = 0; i < 4; i++) {
        vec to[4] = {rows[i][0], rows[i][0] + rows[i][1], rows[i][0] - rows[i][1], -rows[i][1]};
        for (int j = 0; j < 4; j++) store(points + ((4 * i + j) * g.batch + tile) * g.out + channel, to[j]);
      }
    }
  }
}

// As conv_backward_weight().
static void weight_gradient_by_points(const float *images, const float *grad, float *grad_weight, const long *strides,
                                      float *grad_bias, Shape s) {
  Plan p = plan(s);
  Grid g = grid(s, FOR_SUMS);
  long size = (POINTS * s.in + 1) * g.out, parts = g.tiles / 64 < 4 ? 4 : min_long(g.tiles / 64, PARTS);
  float *sums = calloc(parts * size, sizeof(float));  // of a part: 16 x in x out, then the bias's
  float *zeros = calloc(g.in + g.out, sizeof(float));
  long *offsets = malloc(g.batch * sizeof(long));
  for (long tile = 0; tile < g.batch; tile++) offsets[tile] = tile * g.in;
#pragma omp parallel
  {
    float *points = calloc(POINTS * g.batch * (g.in + g.out), sizeof(float));
    float *gradients = points + POINTS * g.batch * g.in;
#pragma omp for schedule(static)
    for (long part = 0; part < parts; part++) {
      float *own = sums + part * size;
      for (long batch = g.batches * part / parts; batch < g.batches * (part + 1) / parts; batch++) {
        long first = batch * g.batch, count = min_long(g.batch, g.tiles - first);
        points_of_images(images, zeros, points, first, count, s, g);
        points_of_gradients(grad, zeros, gradients, own + POINTS * s.in * g.out, first, count, s, p, g);
        for (long point = 0; point < POINTS; point++)
          for (long out = 0; out < g.out; out += p.lanes)
            for (long in = 0; in < s.in;)
              in += add_sums(s.in - in, p.lanes, points + point * g.batch * g.in + in, offsets,
                             gradients + point * g.batch * g.out + out, g.out, count,
                             own + (point * s.in + in) * g.out + out, g.out);
      }
    }
    free(points);
  }
  for (long part = 1; part < parts; part++)
    for (long i = 0; i < size; i++) sums[i] += sums[part * size + i];
  for (long in = 0; in < s.in; in++)
    for (long out = 0; out < s.out; out++) {
      float rows[3][4];
      for (int j = 0; j < 4; j++) {
        float u[4];
        for (int i = 0; i < 4; i++) u[i] = sums[((4 * i + j) * s.in + in) * g.out + out];
        rows[0][j] = u[0] + 0.5f * (u[1] + u[2]);
        rows[1][j] = 0.5f * (u[1] - u[2]);
        rows[2][j] = 0.5f * (u[1] + u[2]) + u[3];
      }
      for (int y = 0; y < 3; y++) {
        float *to = grad_weight + out * strides[0] + in * strides[1] + y * strides[2];
        to[0] = rows[y][0] + 0.5f * (rows[y][1] + rows[y][2]);
        to[strides[3]] = 0.5f * (rows[y][1] - rows[y][2]);
        to[2 * strides[3]] = 0.5f * (rows[y][1] + rows[y][2]) + rows[y][3];
      }
    }
  if (grad_bias) memcpy(grad_bias, sums + POINTS * s.in * g.out, s.out * sizeof(float));
  free(sums);
  free(zeros);
  free(offsets);
}

// `grad_weight` has the strides of the weight; `grad_bias` may be null.
void conv_backward_weight(const float *images, const float *grad, float *grad_weight, const long *strides,
                          float *grad_bias, Shape s) {
  if (by_winograd(s)) {
    weight_gradient_by_points(images, grad, grad_weight, strides, grad_bias, s);
    return;
  }
  Plan p = plan(s);
  long *offsets = window_offsets(s, p);
  long wide = p.blocks * p.lanes, taps = s.kernel * s.kernel * s.in, size = (taps + 1) * wide;
  float *sums = calloc(PARTS * size, sizeof(float));  // of a part: taps x wide, then the bias's
#pragma omp parallel
  {
    float *room = s.pad ? malloc(p.images * p.padded * sizeof(float)) : NULL;
    float *grads = wide == s.out ? NULL : calloc(p.pixels * wide, sizeof(float));
#pragma omp for schedule(static)
    for (long part = 0; part < PARTS; part++) {
      float *own = sums + part * size;
      for (long group = p.groups * part / PARTS; group < p.groups * (part + 1) / PARTS; group++) {
        long first = group * p.images, count = min_long(p.images, s.n - first), pixels = count * p.height * p.width;
        const float *image = with_border(images + first * s.height * s.width * s.in, count, s, p, room);
        const float *gradient = grad + first * p.height * p.width * s.out;
        if (grads) {
          for (long pixel = 0; pixel < pixels; pixel++)
            memcpy(grads + pixel * wide, gradient + pixel * s.out, s.out * sizeof(float));
          gradient = grads;
        }
        for (long chunk = 0; chunk < pixels; chunk += CHUNK)
          for (long y = 0; y < s.kernel; y++)
            for (long block = 0; block < p.blocks; block++)
              for (long j = 0; j < p.row;)
                j += add_sums(p.row - j, p.lanes, image + y * p.padded_width * s.in + j, offsets + chunk,
                              gradient + chunk * wide + block * p.lanes, wide, min_long(CHUNK, pixels - chunk),
                              own + (y * p.row + j) * wide + block * p.lanes, wide);
        if (grad_bias)
          for (long pixel = 0; pixel < pixels; pixel++)
            for (long channel = 0; channel < wide; channel += LANES)
              store(own + taps * wide + channel,
                    load(own + taps * wide + channel) + load(gradient + pixel * wide + channel));
      }
    }
    free(room);
    free(grads);
  }
  for (long part = 1; part < PARTS; part++)
    for (long i = 0; i < size; i++) sums[i] += sums[part * size + i];
  for (long tap = 0; tap < taps; tap++) {
    long y = tap / p.row, x = tap % p.row / s.in, in = tap % s.in;
    for (long out = 0; out < s.out; out++)
      grad_weight[out * strides[0] + in * strides[1] + y * strides[2] + x * strides[3]] = sums[tap * wide + out];
  }
  if (grad_bias) memcpy(grad_bias, sums + taps * wide, s.out * sizeof(float));
  free(offsets);
  free(sums);
}

// ------------------------------------------------------------------------------------------ depthwise convolution, 3x3

// A row of pixels is one line of floats: float i belongs to channel i % channels. The kernel is repeated to `period`
// floats, whole vectors whatever the channels.
static long common_multiple(long a, long b) {
  long multiple = a;
  while (multiple % b) multiple += a;
  return multiple;
}

// (channels, 1, 3, 3) of any strides -> 9 x period; `turned` by 180 degrees for the data's gradient.
static float *repeated(const float *weight, const long *strides, long channels, long period, int turned) {
  float *taps = malloc(9 * period * sizeof(float));
  for (long tap = 0; tap < 9; tap++)
    for (long i = 0; i < period; i++) {
      long from = turned ? 8 - tap : tap;
      taps[tap * period + i] = weight[i % channels * strides[0] + from / 3 * strides[2] + from % 3 * strides[3]];
    }
  return taps;
}

static void depthwise(const float *images, const float *weight, const long *strides, float *output, Shape s,
                      int turned) {
  Plan p = plan(s);
  long period = common_multiple(LANES, s.in), line = p.width * s.in, padded_line = p.padded_width * s.in;
  float *taps = repeated(weight, strides, s.in, period, turned);
#pragma omp parallel
  {
    float *room = s.pad ? malloc(p.padded * sizeof(float)) : NULL;
#pragma omp for schedule(static)
    for (long n = 0; n < s.n; n++) {
      const float *image = with_border(images + n * s.height * s.width * s.in, 1, s, p, room);
      for (long y = 0; y < p.height; y++) {
        const float *above = image + y * padded_line;
        float *result = output + (n * p.height + y) * line;
        for (long i = 0, phase = 0; i < line; i += LANES, phase = phase + LANES == period ? 0 : phase + LANES) {
          vec sum = {0};
          if (line - i >= LANES) {
            for (int tap = 0; tap < 9; tap++)
              sum += load(taps + tap * period + phase) * load(above + tap / 3 * padded_line + tap % 3 * s.in + i);
            store(result + i, sum);
          } else {
            for (long lane = 0; lane < line - i; lane++)
              for (int tap = 0; tap < 9; tap++)
                sum[lane] += taps[tap * period + phase + lane] *
                             above[tap / 3 * padded_line + tap % 3 * s.in + i + lane];
            store_vec(result + i, sum, line - i);
          }
        }
      }
    }
    free(room);
  }
  free(taps);
}

void depthwise_forward(const float *images, const float *weight, const long *strides, float *output, Shape s) {
  depthwise(images, weight, strides, output, s, 0);
}

void depthwise_backward_data(const float *grad, const float *weight, const long *strides, float *grad_images,
                             Shape s) {
  Plan p = plan(s);
  Shape turned = {s.n, p.height, p.width, s.out, s.in, s.kernel, s.kernel - 1 - s.pad};
  depthwise(grad, weight, strides, grad_images, turned, 1);
}

void depthwise_backward_weight(const float *images, const float *grad, float *grad_weight, const long *strides,
                               Shape s) {
  Plan p = plan(s);
  long period = common_multiple(LANES, s.in), line = p.width * s.in, padded_line = p.padded_width * s.in;
  float *sums = calloc(PARTS * 9 * period, sizeof(float));
#pragma omp parallel
  {
    float *room = s.pad ? malloc(p.padded * sizeof(float)) : NULL;
#pragma omp for schedule(static)
    for (long part = 0; part < PARTS; part++)
      for (long n = s.n * part / PARTS; n < s.n * (part + 1) / PARTS; n++) {
        const float *image = with_border(images + n * s.height * s.width * s.in, 1, s, p, room);
        for (long y = 0; y < p.height; y++) {
          const float *above = image + y * padded_line, *gradient = grad + (n * p.height + y) * line;
          for (long i = 0, phase = 0; i < line; i += LANES, phase = phase + LANES == period ? 0 : phase + LANES) {
            float *own = sums + part * 9 * period + phase;
            if (line - i >= LANES) {
              vec g = load(gradient + i);
              for (int tap = 0; tap < 9; tap++)
                store(own + tap * period, load(own + tap * period) +
                                              g * load(above + tap / 3 * padded_line + tap % 3 * s.in + i));
            } else {
              for (long lane = 0; lane < line - i; lane++)
                for (int tap = 0; tap < 9; tap++)
                  own[tap * period + lane] +=
                      gradient[i + lane] * above[tap / 3 * padded_line + tap % 3 * s.in + i + lane];
            }
          }
        }
      }
    free(room);
  }
  for (long channel = 0; channel < s.in; channel++)
    for (long tap = 0; tap < 9; tap++) {
      float total = 0;
      for (long part = 0; part < PARTS; part++)
        for (long i = channel; i < period; i += s.in) total += sums[(part * 9 + tap) * period + i];
      grad_weight[channel * strides[0] + tap / 3 * strides[2] + tap % 3 * strides[3]] = total;
    }
  free(sums);
}

// ------------------------------------------------------------------------------------ ReLU, batch norm and dropout

// A tensor is rows of `period` floats, each row a whole number of pixels; the last row may be shorter.
enum { NO_RELU, RELU_FIRST, NORM_FIRST };

typedef struct {
  long count, channels;
  int relu;
  int bf16;       // whether the tensors are in bfloat16; all sums and products are in float32 all the same
  uint32_t drop;  // of 65536 elements, on average
  uint64_t seed;
} Tail;

typedef struct {
  long period, rows, parts;
} Rows;

static Rows rows_of(Tail t) {
  Rows r;
  r.period = common_multiple(256, t.channels);
  r.rows = (t.count + r.period - 1) / r.period;
  r.parts = min_long(r.rows, 64);
  return r;
}

static inline long size_of_row(long row, Rows r, Tail t) { return min_long(r.period, t.count - row * r.period); }

// Adds the two rows of sums of one part, channel by channel, to `totals`: channels, then channels again.
static void fold(const float *sums, double *totals, long period, long channels) {
  for (long half = 0; half < 2; half++)
    for (long i = 0; i < period; i += channels)
      for (long channel = 0; channel < channels; channel++)
        totals[half * channels + channel] += sums[half * period + i + channel];
}

static float *repeat(const float *channels, long count, long period) {
  float *wide = malloc(period * sizeof(float));
  for (long i = 0; i < period; i++) wide[i] = channels[i % count];
  return wide;
}

// What a row's elements are multiplied by: 0 or 1 / (1 - p). One mixed number gives two elements 16 bits each, so that
// p is exact to 1 / 65536. The mixing is C. Wellons's "lowbias32", whose every input bit reaches every output bit, with
// the seed's halves added before and within.
static void draw_row(float *keep, long row, long period, Tail t) {
  uint32_t drop = t.drop, key = t.seed, second = t.seed >> 32, base = row * (period / 2);
  float scale = 65536.0f / (65536 - drop);
#pragma omp simd
  for (long i = 0; i < period / 2; i++) {
    uint32_t bits = (base + (uint32_t)i) * 0x9e3779b9u + key;
    bits = (bits ^ bits >> 16) * 0x21f0aaadu ^ second;
    bits = (bits ^ bits >> 15) * 0x735a2d97u;
    bits ^= bits >> 15;
    keep[i] = (bits & 0xffff) >= drop ? scale : 0;
    keep[i + period / 2] = bits >> 16 >= drop ? scale : 0;
  }
}

static inline float positive(float x) { return 0 > x ? 0 : x; }  // lets NaN through

// Mean and biased variance of each channel of relu(x), or of x where the norm comes first.
static void statistics(const void *x, double *mean, double *variance, Tail t) {
  Rows r = rows_of(t);
  // Sums are taken of the distance to one value of the channel, so that a mean far from zero costs no
  // precision, as long as that value is a usual one.
  float *shift = malloc(2 * r.period * sizeof(float));
  double *totals = calloc(2 * r.parts * t.channels, sizeof(double));
  const float *first = floats(x, 0, t.channels, shift + r.period, t.bf16);
  for (long i = 0; i < r.period; i++)
    shift[i] = t.relu == RELU_FIRST ? positive(first[i % t.channels]) : first[i % t.channels];
#pragma omp parallel for schedule(static)
  for (long part = 0; part < r.parts; part++) {
    float *sum = calloc(3 * r.period, sizeof(float)), *squares = sum + r.period, *room = squares + r.period;
    for (long row = r.rows * part / r.parts; row < r.rows * (part + 1) / r.parts; row++) {
      long size = size_of_row(row, r, t);
      const float *from = floats(x, row * r.period, size, room, t.bf16);
      if (t.relu == RELU_FIRST)
#pragma omp simd
        for (long i = 0; i < size; i++) {
          float distance = positive(from[i]) - shift[i];
          sum[i] += distance;
          squares[i] += distance * distance;
        }
      else
#pragma omp simd
        for (long i = 0; i < size; i++) {
          float distance = from[i] - shift[i];
          sum[i] += distance;
          squares[i] += distance * distance;
        }
    }
    fold(sum, totals + 2 * part * t.channels, r.period, t.channels);
    free(sum);
  }
  double pixels = (double)t.count / t.channels;
  for (long channel = 0; channel < t.channels; channel++) {
    double sum = 0, squares = 0;
    for (long part = 0; part < r.parts; part++) {
      sum += totals[2 * part * t.channels + channel];
      squares += totals[(2 * part + 1) * t.channels + channel];
    }
    double above = squares / pixels - sum / pixels * (sum / pixels);
    mean[channel] = shift[channel] + sum / pixels;
    variance[channel] = 0 > above ? 0 : above;
  }
  free(shift);
  free(totals);
}

// y = dropout(norm(relu(x))), or dropout(relu(norm(x))) where the norm comes first; no norm where `weight` is null.
// In training the norm takes the batch's statistics and updates the running ones, else it takes the running ones.
// `saved` takes what the backward pass needs: mean, inverse deviation, scale and shift of each channel.
void tail_forward(const void *x, const float *weight, const float *bias, float *running_mean,
                  float *running_variance, float momentum, float epsilon, int training, float *saved, void *y,
                  Tail t) {
  Rows r = rows_of(t);
  long channels = t.channels;
  double *mean = calloc(2 * channels, sizeof(double)), *variance = mean + channels;
  if (weight && training) statistics(x, mean, variance, t);
  for (long channel = 0; channel < channels; channel++) {
    double pixels = (double)t.count / channels, inverse = 1, scale = 1, shift = 0;
    if (weight) {
      if (training) {
        running_mean[channel] += momentum * (mean[channel] - running_mean[channel]);
        running_variance[channel] +=
            momentum * (variance[channel] * pixels / (pixels - 1) - running_variance[channel]);
      } else {
        mean[channel] = running_mean[channel];
        variance[channel] = running_variance[channel];
      }
      inverse = 1 / sqrt(variance[channel] + epsilon);
      scale = weight[channel] * inverse;
      shift = bias[channel] - mean[channel] * scale;
    }
    saved[channel] = mean[channel];
    saved[channels + channel] = inverse;
    saved[2 * channels + channel] = scale;
    saved[3 * channels + channel] = shift;
  }
  free(mean);
  float *a = repeat(saved + 2 * channels, channels, r.period), *b = repeat(saved + 3 * channels, channels, r.period);
#pragma omp parallel
  {
    float *keep = malloc(2 * r.period * sizeof(float)), *room = keep + r.period;
#pragma omp for schedule(static)
    for (long part = 0; part < r.parts; part++)
      for (long row = r.rows * part / r.parts; row < r.rows * (part + 1) / r.parts; row++) {
        long at = row * r.period, size = size_of_row(row, r, t);
        const float *from = floats(x, at, size, room, t.bf16);
        float *to = place(y, at, room, t.bf16);
        if (t.relu == RELU_FIRST)
#pragma omp simd
          for (long i = 0; i < size; i++) to[i] = positive(from[i]) * a[i] + b[i];
        else if (t.relu == NORM_FIRST)
#pragma omp simd
          for (long i = 0; i < size; i++) to[i] = positive(from[i] * a[i] + b[i]);
        else
#pragma omp simd
          for (long i = 0; i < size; i++) to[i] = from[i] * a[i] + b[i];
        if (t.drop) {
          draw_row(keep, row, r.period, t);
#pragma omp simd
          for (long i = 0; i < size; i++) to[i] *= keep[i];
        }
        put(y, at, size, room, t.bf16);
      }
    free(keep);
  }
  free(a);
  free(b);
}

// The backward pass's two loops over a row, one for each order of layers, with dropout (`keep`) and without: one loop
// that asks which it is takes longer.
#define EACH_KIND(LOOP)                                                                                              \
  switch (2 * t.relu + (t.drop > 0)) {                                                                               \
    case 2 * NO_RELU: LOOP(NO_RELU, 0) break;                                                                        \
    case 2 * NO_RELU + 1: LOOP(NO_RELU, 1) break;                                                                    \
    case 2 * RELU_FIRST: LOOP(RELU_FIRST, 0) break;                                                                  \
    case 2 * RELU_FIRST + 1: LOOP(RELU_FIRST, 1) break;                                                              \
    case 2 * NORM_FIRST: LOOP(NORM_FIRST, 0) break;                                                                  \
    case 2 * NORM_FIRST + 1: LOOP(NORM_FIRST, 1) break;                                                              \
  }

// What reaches the norm of a gradient `g`: through dropout, and through the ReLU where that comes after.
static inline float reaching(float g, float keep, float x, float a, float b, int relu, int drop) {
  if (drop) g *= keep;
  return relu == NORM_FIRST && !(x * a + b > 0) ? 0 : g;
}

// Sums over each channel of the gradient that reaches the norm, and of that times the norm's input less its mean.
static void gradient_sums(const void *x, const void *grad, const float *a, const float *b, const float *mean,
                          double *sum, double *products, Rows r, Tail t) {
  float *m = repeat(mean, t.channels, r.period);
  double *totals = calloc(2 * r.parts * t.channels, sizeof(double));
#pragma omp parallel
  {
    float *keep = malloc(5 * r.period * sizeof(float)), *own = keep + r.period, *with_x = own + r.period;
    float *room = with_x + r.period, *grad_room = room + r.period;
#pragma omp for schedule(static)
    for (long part = 0; part < r.parts; part++) {
      memset(own, 0, 2 * r.period * sizeof(float));
      for (long row = r.rows * part / r.parts; row < r.rows * (part + 1) / r.parts; row++) {
        long at = row * r.period, size = size_of_row(row, r, t);
        const float *from = floats(x, at, size, room, t.bf16);
        const float *g = floats(grad, at, size, grad_room, t.bf16);
        if (t.drop) draw_row(keep, row, r.period, t);
#define ADD_TO_SUMS(RELU, DROP)                                                                                      \
  _Pragma("omp simd") for (long i = 0; i < size; i++) {                                                              \
    float reached = reaching(g[i], keep[i], from[i], a[i], b[i], RELU, DROP);                                        \
    own[i] += reached;                                                                                               \
    with_x[i] += reached * ((RELU == RELU_FIRST ? positive(from[i]) : from[i]) - m[i]);                              \
  }
        EACH_KIND(ADD_TO_SUMS)
      }
      fold(own, totals + 2 * part * t.channels, r.period, t.channels);
    }
    free(keep);
  }
  for (long channel = 0; channel < t.channels; channel++)
    for (long part = 0; part < r.parts; part++) {
      sum[channel] += totals[2 * part * t.channels + channel];
      products[channel] += totals[(2 * part + 1) * t.channels + channel];
    }
  free(m);
  free(totals);
}

// The gradients of tail_forward in training. `grad_weight` and `grad_bias` are null where there is no norm.
void tail_backward(const void *x, const void *grad, const float *saved, float *grad_weight, float *grad_bias,
                   void *grad_x, Tail t) {
  Rows r = rows_of(t);
  long channels = t.channels;
  const float *mean = saved, *inverse = saved + channels, *scale = saved + 2 * channels, *shift = saved + 3 * channels;
  float *a = repeat(scale, channels, r.period), *b = repeat(shift, channels, r.period);
  // scale * (g - mean(g) - normalised x * mean(g * normalised x)) is scale * g + slope * x + offset
  float *slope = calloc(2 * channels, sizeof(float)), *offset = slope + channels;
  if (grad_weight) {
    double *sum = calloc(2 * channels, sizeof(double)), *products = sum + channels;
    gradient_sums(x, grad, a, b, mean, sum, products, r, t);
    for (long channel = 0; channel < channels; channel++) {
      double pixels = (double)t.count / channels, along = products[channel] * inverse[channel];
      double steep = -scale[channel] * inverse[channel] * along / pixels;
      grad_weight[channel] = along;
      grad_bias[channel] = sum[channel];
      slope[channel] = steep;
      offset[channel] = -scale[channel] * sum[channel] / pixels - steep * mean[channel];
    }
    free(sum);
  }
  float *c = repeat(slope, channels, r.period), *d = repeat(offset, channels, r.period);
#pragma omp parallel
  {
    float *keep = malloc(3 * r.period * sizeof(float)), *room = keep + r.period, *grad_room = room + r.period;
#pragma omp for schedule(static)
    for (long part = 0; part < r.parts; part++)
      for (long row = r.rows * part / r.parts; row < r.rows * (part + 1) / r.parts; row++) {
        long at = row * r.period, size = size_of_row(row, r, t);
        const float *from = floats(x, at, size, room, t.bf16);
        const float *g = floats(grad, at, size, grad_room, t.bf16);
        float *to = place(grad_x, at, room, t.bf16);
        if (t.drop) draw_row(keep, row, r.period, t);
#define GRADIENT(RELU, DROP)                                                                                         \
  _Pragma("omp simd") for (long i = 0; i < size; i++) {                                                              \
    float reached = reaching(g[i], keep[i], from[i], a[i], b[i], RELU, DROP);                                        \
    to[i] = RELU == RELU_FIRST && !(from[i] > 0) ? 0 : a[i] * reached + c[i] * from[i] + d[i];                       \
  }
        EACH_KIND(GRADIENT)
        put(grad_x, at, size, room, t.bf16);
      }
    free(keep);
  }
  free(a);
  free(b);
  free(c);
  free(d);
  free(slope);
}

// --------------------------------------------------------------------------------------------- max pooling, 2x2

typedef int32_t mask __attribute__((vector_size(4 * LANES), aligned(4)));  // of each float all bits or none

static inline vec only(vec value, mask where) { return (vec)((mask)value & where); }
static inline vec choose(mask where, vec yes, vec no) { return (vec)(((mask)yes & where) | ((mask)no & ~where)); }
// Where `value` takes the place of the maximum so far; NaN stays once it is there.
static inline mask above(vec value, vec so_far) { return (value > so_far) | (value != value); }

// (n, height, width, channels) -> (n, height / 2, width / 2, channels); a last odd row or column is left out.
void pool_forward(const void *images, void *output, long n, long height, long width, long channels, int bf16) {
  long out_height = height / 2, out_width = width / 2, line = width * channels, out_line = out_width * channels;
#pragma omp parallel
  {
    float *room = malloc((2 * line + out_line) * sizeof(float));
#pragma omp for schedule(static)
    for (long row = 0; row < n * out_height; row++) {
      long start = (row / out_height * height + row % out_height * 2) * line;
      const float *upper = floats(images, start, 2 * line, room, bf16);
      float *to = place(output, row * out_line, room + 2 * line, bf16);
      for (long x = 0; x < out_width; x++, upper += 2 * channels, to += channels)
        for (long i = 0; i < channels; i += LANES) {
          const float *at = upper + i;
          long left = channels - i;
          vec a = load_part(at, left), b = load_part(at + channels, left);
          vec c = load_part(at + line, left), d = load_part(at + line + channels, left);
          vec top = choose(above(b, a), b, a), low = choose(above(d, c), d, c);
          store_vec(to + i, choose(above(low, top), low, top), left);
        }
      put(output, row * out_line, out_line, room + 2 * line, bf16);
    }
    free(room);
  }
}

// The gradient goes to the first of equal maxima, as PyTorch's does.
void pool_backward(const void *images, const void *grad, void *grad_images, long n, long height, long width,
                   long channels, int bf16) {
  long out_height = height / 2, out_width = width / 2, line = width * channels, out_line = out_width * channels;
#pragma omp parallel
  {
    float *room = malloc((5 * line + out_line) * sizeof(float)), *grad_room = room + 2 * line;
#pragma omp for schedule(static)
    for (long row = 0; row < n * out_height; row++) {
      long image = row / out_height, y = row % out_height * 2, start = (image * height + y) * line;
      long lines = height % 2 && y + 3 == height ? 3 : 2;  // with a last odd one
      const float *upper = floats(images, start, 2 * line, room, bf16);
      const float *from = floats(grad, row * out_line, out_line, room + 5 * line, bf16);
      float *whole = place(grad_images, start, grad_room, bf16), *to = whole;
      for (long x = 0; x < out_width; x++, upper += 2 * channels, to += 2 * channels, from += channels)
        for (long i = 0; i < channels; i += LANES) {
          const float *at = upper + i;
          long left = channels - i;
          vec a = load_part(at, left), b = load_part(at + channels, left);
          vec c = load_part(at + line, left), d = load_part(at + line + channels, left), g = load_part(from + i, left);
          mask right = above(b, a), low_right = above(d, c);
          mask low = above(choose(low_right, d, c), choose(right, b, a));
          store_vec(to + i, only(g, ~low & ~right), left);
          store_vec(to + channels + i, only(g, ~low & right), left);
          store_vec(to + line + i, only(g, low & ~low_right), left);
          store_vec(to + line + channels + i, only(g, low & low_right), left);
        }
      if (width % 2)
        for (long below = 0; below < 2; below++)
          memset(whole + below * line + (width - 1) * channels, 0, channels * sizeof(float));
      if (lines == 3) memset(whole + 2 * line, 0, line * sizeof(float));
      put(grad_images, start, lines * line, whole, bf16);
    }
    free(room);
  }
}
