"""Chips that hypothesis draws: every model of every part."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from xbar_core import AAM, FCM, Ideal, Interpolated, Wires
from xbar_core.config import (
    Adc,
    Array,
    Chip,
    CrossbarBackward,
    DeterministicUpdate,
    Device,
    Drift,
    DynamicRange,
    ExactBackward,
    Faults,
    FixedRange,
    FixedWeight,
    Input,
    JumpTable,
    Mapping,
    MappingScale,
    MaxAbs,
    MeasuredCurve,
    NativeScale,
    NativeWeight,
    NoNoise,
    OddPolynomial,
    Precision,
    ProgrammingError,
    ReadNoise,
    SqrtNoise,
    StochasticUpdate,
    TrackedRange,
    TxsimNoise,
    Update,
    Variation,
)


def unit(low: float = 0.0, high: float = 1.0) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_subnormal=False)


RANGES = st.one_of(
    st.builds(DynamicRange),
    st.builds(TrackedRange, batches=st.integers(1, 500)),
    st.builds(TrackedRange, statistic=st.just("percentile"), percentile=unit(1, 100), epochs=st.just(2)),
    st.builds(FixedRange, value=unit(1e-9, 1e3)),
)
CURVES = st.one_of(
    st.none(),
    st.builds(OddPolynomial, st.tuples(unit(-0.1, 0.1), unit(-0.1, 0.1))),
    st.just(MeasuredCurve((-1.0, 0.0, 1.0), (-0.9, 0.01, 1.0), "adc.csv")),
)
TABLE = JumpTable((1e-6, 5e-6), (0.0, 0.5, 1.0), ((0.0, 1e-7, 2e-7), (-1e-8, 0.0, 1e-8)), "t.csv")
NOISES = st.one_of(
    st.builds(NoNoise, stage=st.sampled_from(["after_lr", "before_lr"])),
    st.builds(TxsimNoise, gamma=unit(0, 20)),
    st.builds(SqrtNoise, gamma=unit(0, 20), stage=st.just("before_lr")),
)
LAW: dict[str, Any] = {
    "v_up": unit(-9, 9),
    "v_down": unit(-9, 9),
    "pair": st.sampled_from([None, "both", "carry", "one_sided"]),
    "scale": st.one_of(st.builds(MappingScale), st.builds(NativeScale, w_max=unit(0.1, 9), dw_max=st.none())),
    "gradient": st.sampled_from(["quantised", "full"]),
    "noise": NOISES,
}
PLAIN: dict[str, Any] = {
    "r_min": unit(1e3, 1e5),
    "r_max": unit(2e5, 1e8),
    "levels": st.one_of(st.none(), st.integers(64, 500)),
    "variation": st.one_of(
        st.none(), st.builds(Variation, st.just("lognormal"), unit(), unit(), unit(), unit())
    ),
    "faults": st.one_of(st.none(), st.builds(Faults, unit(0, 0.3), unit(0, 0.3), unit(0, 0.3))),
    "read_noise": st.one_of(st.none(), st.builds(ReadNoise, unit(), st.just("per_batch"))),
    "drift": st.one_of(st.none(), st.builds(Drift, unit(0, 0.1), unit(0, 0.1), unit(0.1, 30))),
    "programming_error": st.one_of(st.none(), st.builds(ProgrammingError, unit(), st.just("absolute"))),
}
CHIPS = st.builds(
    Chip,
    name=st.text(max_size=12),
    seed=st.integers(0, 2**63 - 1),
    array=st.builds(Array, st.integers(1, 300), st.integers(1, 300), st.sampled_from(["open", "g_min"])),
    wires=st.builds(Wires, unit(0.1, 10), unit(0.1, 10), unit(1, 1e3), st.just(0.0)),
    circuit=st.one_of(
        st.builds(Ideal),
        st.builds(AAM, st.integers(0, 5)),
        st.builds(FCM, st.one_of(st.none(), st.just(1e-6))),
        st.builds(Interpolated, st.integers(1, 99), st.sampled_from(["anchored", "distortion"])),
    ),
    device=st.builds(Device, **PLAIN),
    precision=st.one_of(st.none(), st.builds(Precision, st.integers(2, 32), st.just("nearest"))),
    mapping=st.builds(
        Mapping,
        kind=st.sampled_from(["balanced", "differential"]),
        weight_bits=st.one_of(st.none(), st.integers(2, 6)),
        w_max=st.one_of(
            st.builds(MaxAbs, unit(1, 9)), st.builds(FixedWeight, unit(0.1, 9)), st.builds(NativeWeight)
        ),
    ),
    input=st.builds(
        Input, st.integers(2, 16), st.sampled_from([None, 1, 2]), v_read=unit(0.1, 2), range=RANGES
    ),
    adc=st.builds(
        Adc,
        st.one_of(st.none(), st.integers(2, 12)),
        range=RANGES,
        subtract=st.sampled_from(["analog", "digital"]),
        gain_error=unit(0, 0.1),
        offset_error=unit(0, 1e-6),
        noise=unit(0, 1e-6),
        nonlinearity=CURVES,
    ),
    update=st.one_of(
        st.builds(Update, **LAW),
        st.builds(DeterministicUpdate, bits=st.integers(2, 8), samples_per_write=st.just(1), **LAW),
        st.builds(StochasticUpdate, stream_length=st.integers(1, 99), **LAW),
    ),
    backward=st.one_of(st.builds(ExactBackward), st.builds(CrossbarBackward, RANGES, RANGES)),
    sources=st.just((("device.r_min", "assumed: drawn"),)),
)
