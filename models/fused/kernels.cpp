// Training kernels of OSNet's small layers for one CPU thread; see models/fused/__init__.py.
//
// All tensors are float32 in rows of channels: (n, h, w, c). A layer of OSNet x0.25 has 16 to 32
// channels, one or two vector registers, so its time goes into passes over memory and not into
// arithmetic: every kernel here reads and writes each tensor once.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

using std::int64_t;

// ---- Lite 3x3: pointwise, then depthwise -------------------------------------------------------

// C channels as M vectors of L lanes; the compiler splits a vector where registers are narrower.
template <int C>
struct Row {
  static constexpr int L = C % 16 == 0 ? 16 : 8;
  static constexpr int M = C / L;
  typedef float Vector __attribute__((vector_size(L * sizeof(float)), aligned(4), may_alias));
  static Vector load(const float* from) { return *reinterpret_cast<const Vector*>(from); }
  static void store(float* to, Vector value) { *reinterpret_cast<Vector*>(to) = value; }
};

// out[p] = x[p] · w for p in 0..count; w is (C, C) by input channel. R rows share each load.
template <int C, int R>
inline void pointwise_rows(const float* __restrict x, const float* __restrict w,
                           float* __restrict out) {
  using V = Row<C>;
  for (int m = 0; m < V::M; ++m) {
    typename V::Vector sums[R] = {};
    for (int k = 0; k < C; ++k) {
      const typename V::Vector weights = V::load(w + k * C + m * V::L);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) sums[r] += x[r * C + k] * weights;
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) V::store(out + r * C + m * V::L, sums[r]);
  }
}

template <int C>
void pointwise(const float* __restrict x, const float* __restrict w, float* __restrict out,
               int64_t count) {
  constexpr int R = 12;
  int64_t p = 0;
  for (; p + R <= count; p += R) pointwise_rows<C, R>(x + p * C, w, out + p * C);
  for (; p < count; ++p) pointwise_rows<C, 1>(x + p * C, w, out + p * C);
}

// into[k][c] += sum over p of x[p][k] · g[p][c]
template <int C>
void outer(const float* __restrict x, const float* __restrict g, float* __restrict into,
           int64_t count) {
  using V = Row<C>;
  constexpr int K = C % 16 == 0 ? 16 : 12;
  for (int base = 0; base < C; base += K)
    for (int m = 0; m < V::M; ++m) {
      typename V::Vector sums[K] = {};
      for (int64_t p = 0; p < count; ++p) {
        const typename V::Vector value = V::load(g + p * C + m * V::L);
#pragma GCC unroll 16
        for (int k = 0; k < K; ++k) sums[k] += x[p * C + base + k] * value;
      }
      for (int k = 0; k < K; ++k)
        for (int lane = 0; lane < V::L; ++lane)
          into[(base + k) * C + m * V::L + lane] += sums[k][lane];
    }
}

// A padded copy of one image has a border of zeros one pixel wide.
template <int C>
void unpad(float* padded, const float* rows, int64_t h, int64_t w) {
  for (int64_t y = 0; y < h; ++y)
    std::memcpy(padded + ((y + 1) * (w + 2) + 1) * C, rows + y * w * C, sizeof(float) * w * C);
}

// out[y][x] = sum of taps[t] · padded[y + t / 3][x + t % 3]
template <int C>
void depthwise(const float* __restrict padded, const float* __restrict taps,
               float* __restrict out, int64_t h, int64_t w) {
  using V = Row<C>;
  const int64_t row = (w + 2) * C;
  for (int m = 0; m < V::M; ++m) {
    typename V::Vector tap[9];
#pragma GCC unroll 9
    for (int t = 0; t < 9; ++t) tap[t] = V::load(taps + t * C + m * V::L);
    for (int64_t y = 0; y < h; ++y)
      for (int64_t x = 0; x < w; ++x) {
        const float* at = padded + y * row + x * C + m * V::L;
        typename V::Vector sum = {};
#pragma GCC unroll 9
        for (int t = 0; t < 9; ++t) sum += V::load(at + (t / 3) * row + (t % 3) * C) * tap[t];
        V::store(out + (y * w + x) * C + m * V::L, sum);
      }
  }
}

// into[t] += sum over pixels of g · padded[tap]
template <int C>
void depthwise_weights(const float* __restrict padded, const float* __restrict g,
                       float* __restrict into, int64_t h, int64_t w) {
  using V = Row<C>;
  const int64_t row = (w + 2) * C;
  for (int m = 0; m < V::M; ++m) {
    typename V::Vector sums[9] = {};
    for (int64_t y = 0; y < h; ++y)
      for (int64_t x = 0; x < w; ++x) {
        const float* at = padded + y * row + x * C + m * V::L;
        const typename V::Vector value = V::load(g + (y * w + x) * C + m * V::L);
#pragma GCC unroll 9
        for (int t = 0; t < 9; ++t) sums[t] += value * V::load(at + (t / 3) * row + (t % 3) * C);
      }
    for (int t = 0; t < 9; ++t)
      for (int lane = 0; lane < V::L; ++lane) into[t * C + m * V::L + lane] += sums[t][lane];
  }
}

template <int C>
void lite_forward(const float* x, const float* point, const float* taps, float* out, int64_t n,
                  int64_t h, int64_t w) {
  std::vector<float> middle(h * w * C), padded((h + 2) * (w + 2) * C, 0.0f);
  for (int64_t i = 0; i < n; ++i) {
    pointwise<C>(x + i * h * w * C, point, middle.data(), h * w);
    unpad<C>(padded.data(), middle.data(), h, w);
    depthwise<C>(padded.data(), taps, out + i * h * w * C, h, w);
  }
}

template <int C>
void lite_backward(const float* x, const float* point, const float* taps, const float* g,
                   float* g_x, float* g_point, float* g_taps, int64_t n, int64_t h, int64_t w) {
  std::vector<float> middle(h * w * C), padded((h + 2) * (w + 2) * C, 0.0f);
  std::vector<float> flipped(9 * C), transposed(C * C);
  for (int t = 0; t < 9; ++t)
    for (int c = 0; c < C; ++c) flipped[t * C + c] = taps[(8 - t) * C + c];
  for (int k = 0; k < C; ++k)
    for (int c = 0; c < C; ++c) transposed[c * C + k] = point[k * C + c];
  for (int64_t i = 0; i < n; ++i) {
    const float* image = x + i * h * w * C;
    const float* gradient = g + i * h * w * C;
    pointwise<C>(image, point, middle.data(), h * w);
    unpad<C>(padded.data(), middle.data(), h, w);
    depthwise_weights<C>(padded.data(), gradient, g_taps, h, w);
    unpad<C>(padded.data(), gradient, h, w);
    depthwise<C>(padded.data(), flipped.data(), middle.data(), h, w);
    outer<C>(image, middle.data(), g_point, h * w);
    pointwise<C>(middle.data(), transposed.data(), g_x + i * h * w * C, h * w);
  }
}

// ---- Normalisation with what follows it --------------------------------------------------------

constexpr int MOST_CHANNELS = 512;
constexpr int64_t BLOCK = 64;  // rows summed in float before they join a sum in double

}  // namespace

extern "C" {

// Returns 0, or 1 where there is no kernel for c channels.
#define LITE_SIZES(DO) DO(16) DO(24) DO(32) DO(48) DO(64) DO(96) DO(128)

int reid_lite_forward(const float* x, const float* point, const float* taps, float* out, int64_t n,
                      int64_t h, int64_t w, int64_t c) {
  switch (c) {
#define CASE(C) case C: lite_forward<C>(x, point, taps, out, n, h, w); return 0;
    LITE_SIZES(CASE)
#undef CASE
  }
  return 1;
}

int reid_lite_backward(const float* x, const float* point, const float* taps, const float* g,
                       float* g_x, float* g_point, float* g_taps, int64_t n, int64_t h, int64_t w,
                       int64_t c) {
  switch (c) {
#define CASE(C) \
  case C: lite_backward<C>(x, point, taps, g, g_x, g_point, g_taps, n, h, w); return 0;
    LITE_SIZES(CASE)
#undef CASE
  }
  return 1;
}

// Mean and 1 / deviation of each channel over `rows` rows, in each of `groups` groups.
void reid_moments(const float* __restrict x, float* __restrict mean, float* __restrict scale,
                  int64_t groups, int64_t rows, int64_t c, float epsilon) {
  double total[MOST_CHANNELS], squares[MOST_CHANNELS];
  float part[MOST_CHANNELS], part_squares[MOST_CHANNELS];
  for (int64_t group = 0; group < groups; ++group) {
    const float* from = x + group * rows * c;
    std::fill_n(total, c, 0.0);
    std::fill_n(squares, c, 0.0);
    for (int64_t start = 0; start < rows; start += BLOCK) {
      std::fill_n(part, c, 0.0f);
      std::fill_n(part_squares, c, 0.0f);
      for (int64_t row = start; row < std::min(start + BLOCK, rows); ++row)
        for (int64_t k = 0; k < c; ++k) {
          const float value = from[row * c + k];
          part[k] += value;
          part_squares[k] += value * value;
        }
      for (int64_t k = 0; k < c; ++k) {
        total[k] += part[k];
        squares[k] += part_squares[k];
      }
    }
    for (int64_t k = 0; k < c; ++k) {
      const double m = total[k] / rows;
      mean[group * c + k] = m;
      scale[group * c + k] = 1.0 / std::sqrt(std::max(squares[k] / rows - m * m, 0.0) + epsilon);
    }
  }
}

// out = (x - mean) · scale · weight + bias, plus `add` where given, then ReLU where wanted.
void reid_normalise(const float* __restrict x, const float* __restrict mean,
                    const float* __restrict scale, const float* __restrict weight,
                    const float* __restrict bias, const float* __restrict add,
                    float* __restrict out, int64_t groups, int64_t rows, int64_t c, int relu) {
  float a[MOST_CHANNELS], b[MOST_CHANNELS];
  const float floor = relu ? 0.0f : -3.0e38f;
  for (int64_t group = 0; group < groups; ++group) {
    for (int64_t k = 0; k < c; ++k) {
      a[k] = scale[group * c + k] * weight[k];
      b[k] = bias[k] - mean[group * c + k] * a[k];
    }
    for (int64_t row = group * rows; row < (group + 1) * rows; ++row) {
      if (add)
        for (int64_t k = 0; k < c; ++k) {
          const float value = x[row * c + k] * a[k] + b[k] + add[row * c + k];
          out[row * c + k] = value > floor ? value : floor;
        }
      else
        for (int64_t k = 0; k < c; ++k) {
          const float value = x[row * c + k] * a[k] + b[k];
          out[row * c + k] = value > floor ? value : floor;
        }
    }
  }
}

// Gradients of reid_normalise with reid_moments behind it; g_weight and g_bias are added to. After
// a ReLU, `out` and `g_add` are given where something was added: g_add gets the gradient after the
// ReLU, which is the whole gradient of what was added. Else the ReLU's mask comes from x again.
void reid_normalise_backward(const float* __restrict x, const float* __restrict mean,
                             const float* __restrict scale, const float* __restrict weight,
                             const float* __restrict bias, const float* __restrict out,
                             const float* __restrict g,
                             float* __restrict g_x, float* __restrict g_add,
                             float* __restrict g_weight, float* __restrict g_bias, int64_t groups,
                             int64_t rows, int64_t c, int relu) {
  double sum[MOST_CHANNELS], product[MOST_CHANNELS];
  float part[MOST_CHANNELS], part_product[MOST_CHANNELS];
  float p[MOST_CHANNELS], q[MOST_CHANNELS], r[MOST_CHANNELS], b[MOST_CHANNELS];
  for (int64_t group = 0; group < groups; ++group) {
    const float* m = mean + group * c;
    const float* s = scale + group * c;
    for (int64_t k = 0; k < c; ++k) {
      p[k] = weight[k] * s[k];
      b[k] = bias[k] - m[k] * p[k];
    }
    std::fill_n(sum, c, 0.0);
    std::fill_n(product, c, 0.0);
    for (int64_t start = group * rows; start < (group + 1) * rows; start += BLOCK) {
      std::fill_n(part, c, 0.0f);
      std::fill_n(part_product, c, 0.0f);
      for (int64_t row = start; row < std::min(start + BLOCK, (group + 1) * rows); ++row) {
        const int64_t at = row * c;
        if (relu && !out)
          for (int64_t k = 0; k < c; ++k) {
            const float value = x[at + k] * p[k] + b[k] > 0.0f ? g[at + k] : 0.0f;
            part[k] += value;
            part_product[k] += value * (x[at + k] - m[k]);
          }
        else if (relu)
          for (int64_t k = 0; k < c; ++k) {
            const float value = out[at + k] > 0.0f ? g[at + k] : 0.0f;
            part[k] += value;
            part_product[k] += value * (x[at + k] - m[k]);
          }
        else
          for (int64_t k = 0; k < c; ++k) {
            part[k] += g[at + k];
            part_product[k] += g[at + k] * (x[at + k] - m[k]);
          }
      }
      for (int64_t k = 0; k < c; ++k) {
        sum[k] += part[k];
        product[k] += part_product[k];
      }
    }
    for (int64_t k = 0; k < c; ++k) {
      const float hat = product[k] * s[k];  // sum of gradient times normalised input
      g_bias[k] += sum[k];
      g_weight[k] += hat;
      q[k] = -p[k] * s[k] * hat / rows;
      r[k] = -p[k] * sum[k] / rows - q[k] * m[k];
    }
    for (int64_t row = group * rows; row < (group + 1) * rows; ++row) {
      const int64_t at = row * c;
      if (!relu)
        for (int64_t k = 0; k < c; ++k) g_x[at + k] = p[k] * g[at + k] + q[k] * x[at + k] + r[k];
      else if (!out)
        for (int64_t k = 0; k < c; ++k) {
          const float value = x[at + k] * p[k] + b[k] > 0.0f ? g[at + k] : 0.0f;
          g_x[at + k] = p[k] * value + q[k] * x[at + k] + r[k];
        }
      else
        for (int64_t k = 0; k < c; ++k) {
          const float value = out[at + k] > 0.0f ? g[at + k] : 0.0f;
          g_add[at + k] = value;
          g_x[at + k] = p[k] * value + q[k] * x[at + k] + r[k];
        }
    }
  }
}

// ---- Gated sum of streams: out = sum over t of streams[t] · gates[t] ---------------------------

void reid_gated_sum(const float* const* streams, const float* const* gates, float* __restrict out,
                    int64_t t_count, int64_t n, int64_t rows, int64_t c) {
  for (int64_t i = 0; i < n; ++i)
    for (int64_t row = i * rows; row < (i + 1) * rows; ++row)
      for (int64_t t = 0; t < t_count; ++t) {
        const float* __restrict s = streams[t] + row * c;
        const float* __restrict gate = gates[t] + i * c;
        float* __restrict to = out + row * c;
        if (t == 0)
          for (int64_t k = 0; k < c; ++k) to[k] = s[k] * gate[k];
        else
          for (int64_t k = 0; k < c; ++k) to[k] += s[k] * gate[k];
      }
}

// g_gates[t] = sum over an image's rows of g · streams[t]
void reid_gates_backward(const float* const* streams, const float* __restrict g,
                         float* const* g_gates, int64_t t_count, int64_t n, int64_t rows,
                         int64_t c) {
  float sums[MOST_CHANNELS];
  for (int64_t i = 0; i < n; ++i)
    for (int64_t t = 0; t < t_count; ++t) {
      const float* __restrict s = streams[t];
      std::fill_n(sums, c, 0.0f);
      for (int64_t row = i * rows; row < (i + 1) * rows; ++row)
        for (int64_t k = 0; k < c; ++k) sums[k] += g[row * c + k] * s[row * c + k];
      std::memcpy(g_gates[t] + i * c, sums, sizeof(float) * c);
    }
}

// g_streams[t] = g · gates[t] + g_means[t], what reached a stream's mean spread over its rows
void reid_streams_backward(const float* const* gates, const float* const* g_means,
                           const float* __restrict g, float* const* g_streams, int64_t t_count,
                           int64_t n, int64_t rows, int64_t c) {
  for (int64_t i = 0; i < n; ++i)
    for (int64_t t = 0; t < t_count; ++t) {
      const float* __restrict gate = gates[t] + i * c;
      const float* __restrict add = g_means[t] + i * c;
      float* __restrict to = g_streams[t];
      for (int64_t row = i * rows; row < (i + 1) * rows; ++row)
        for (int64_t k = 0; k < c; ++k) to[row * c + k] = g[row * c + k] * gate[k] + add[k];
    }
}

}  // extern "C"
