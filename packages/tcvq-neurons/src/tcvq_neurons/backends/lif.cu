// LIF neurons over N_STEPS steps at once: a forward, and a backward that saves nothing and recomputes the membrane.
// The equations and the order of every rounding are those of tcvq_neurons/dynamics.py; results are equal bit for bit.
//
// No headers are needed. cuda_source.py puts tcvq_surrogate(u, k0, k1, k2) in front of this text and defines
//   N_STEPS            steps of this launch, held in registers by the backward
//   WIDTH              neurons of one thread, read and written together
//   SCALAR             type of x, y and their gradients in memory: float, Half or Bfloat16
//   RESET              HARD, SOFT or NONE
//   DECAY_INPUT, DETACH_RESET, FIRE_AT_THRESHOLD, GATE: 0 or 1
//   FROM_REST          1 if v0 is 0 and not read
//   TRACE              what the forward records of each step: NOTHING, BEFORE_RESET (h) or AFTER_RESET (v)
// It must be compiled without contraction to FMA, without flushing of denormals and with IEEE division.
//
// Letters: current x, membrane before reset h and after reset v, spike s, output y (s, or x * s for a gate), carry c =
// dL/dv. Positions and distances are in packs of WIDTH values, in 64 bits. A null grad_v is 0, a null v_last or grad_v0 is
// not wanted, and trace is used only if TRACE is set. v_last may be v0 itself and grad_v0 may be grad_v.

enum { HARD, SOFT, NONE };
enum { NOTHING, BEFORE_RESET, AFTER_RESET };

struct Half { unsigned short bits; };
struct Bfloat16 { unsigned short bits; };

template <class T>
struct alignas(sizeof(T) * WIDTH < 16 ? sizeof(T) * WIDTH : 16) Pack { T value[WIDTH]; };  // what one load can fetch

typedef Pack<SCALAR> Values;
typedef Pack<float> State;

__device__ __forceinline__ float widen(float value) { return value; }
__device__ __forceinline__ float widen(Bfloat16 value) { return __uint_as_float((unsigned)value.bits << 16); }
__device__ __forceinline__ float widen(Half value) {
#ifdef TCVQ_CPU_SHIM
    return shim_half_to_float(value.bits);
#else
    float wide;
    asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(value.bits));
    return wide;
#endif
}

// Round to the nearest, ties to even.
__device__ __forceinline__ void narrow(float value, float& stored) { stored = value; }
__device__ __forceinline__ void narrow(float value, Bfloat16& stored) {
    unsigned bits = __float_as_uint(value);
    unsigned rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    stored.bits = (unsigned short)(value != value ? 0x7fc0u : rounded);
}
__device__ __forceinline__ void narrow(float value, Half& stored) {
#ifdef TCVQ_CPU_SHIM
    stored.bits = shim_float_to_half(value);
#else
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(stored.bits) : "f"(value));
#endif
}

__device__ __forceinline__ float charge(float x, float v, float tau) {
    return DECAY_INPUT ? v + (x - v) / tau : v - v / tau + x;
}

__device__ __forceinline__ float fire(float h, float v_th) {
    float u = h - v_th;
    return (FIRE_AT_THRESHOLD ? u >= 0.0f : u > 0.0f) ? 1.0f : 0.0f;
}

__device__ __forceinline__ float reset(float h, float s, float v_th) {
    return RESET == HARD ? h * (1.0f - s) : RESET == SOFT ? h - s * v_th : h;
}

extern "C" __global__ void __launch_bounds__(256, 1) lif_forward(
    const Values* __restrict__ x, long long x_step, const State* v0,
    Values* __restrict__ y, State* v_last, State* __restrict__ trace,
    float tau, float v_th, long long n_packs)
{
    const long long n_threads = (long long)gridDim.x * blockDim.x;
#pragma unroll 1
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n_packs; i += n_threads) {
        State v = {};
        if (!FROM_REST) v = v0[i];
#pragma unroll
        for (int t = 0; t < N_STEPS; ++t) {
            const Values x_t = x[t * x_step + i];
            State h_t;
            Values y_t;
#pragma unroll
            for (int j = 0; j < WIDTH; ++j) {
                const float x_j = widen(x_t.value[j]);
                const float h = charge(x_j, v.value[j], tau);
                const float s = fire(h, v_th);
                h_t.value[j] = h;
                v.value[j] = reset(h, s, v_th);
                narrow(GATE ? x_j * s : s, y_t.value[j]);
            }
            y[t * n_packs + i] = y_t;
            if (TRACE != NOTHING) trace[t * n_packs + i] = TRACE == BEFORE_RESET ? h_t : v;
        }
        if (v_last) v_last[i] = v;
    }
}

extern "C" __global__ void __launch_bounds__(256, 1) lif_backward(
    const Values* __restrict__ x, long long x_step, const State* __restrict__ v0,
    const Values* __restrict__ grad_y, long long grad_y_step, const State* grad_v,
    Values* __restrict__ grad_x, State* grad_v0,
    float tau, float v_th, float k0, float k1, float k2, long long n_packs)
{
    const long long n_threads = (long long)gridDim.x * blockDim.x;
#pragma unroll 1
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n_packs; i += n_threads) {
        State h_seq[N_STEPS];
        State v = {};
        if (!FROM_REST) v = v0[i];
#pragma unroll
        for (int t = 0; t < N_STEPS; ++t) {
            const Values x_t = x[t * x_step + i];
#pragma unroll
            for (int j = 0; j < WIDTH; ++j) {
                const float h = charge(widen(x_t.value[j]), v.value[j], tau);
                h_seq[t].value[j] = h;
                v.value[j] = reset(h, fire(h, v_th), v_th);
            }
        }
        State c = {};
        if (grad_v) c = grad_v[i];
#pragma unroll
        for (int t = N_STEPS - 1; t >= 0; --t) {
            const Values x_t = x[t * x_step + i];
            const Values gy_t = grad_y[t * grad_y_step + i];
            Values gx_t;
#pragma unroll
            for (int j = 0; j < WIDTH; ++j) {
                const float h = h_seq[t].value[j], s = fire(h, v_th), gy = widen(gy_t.value[j]);
                float gs = GATE ? gy * widen(x_t.value[j]) : gy;
                float gh = c.value[j];
                if (!DETACH_RESET && RESET != NONE) gs = gs - gh * (RESET == HARD ? h : v_th);
                if (RESET == HARD) gh = gh * (1.0f - s);
                gh = gs * tcvq_surrogate(h - v_th, k0, k1, k2) + gh;
                const float q = gh / tau, gx = DECAY_INPUT ? q : gh;
                c.value[j] = gh - q;
                narrow(GATE ? gy * s + gx : gx, gx_t.value[j]);
            }
            grad_x[t * n_packs + i] = gx_t;
        }
        if (grad_v0) grad_v0[i] = c;
    }
}
