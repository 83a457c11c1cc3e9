"""A metric: metrics.metrics=[psnr,median_error]."""

from rsdiff.metrics.metric import Context, ImageScore, Metric, View


def _median_error(context: Context) -> ImageScore:
    def score(view: View) -> float:
        image, hr, valid = view.pair()
        errors = (image - hr).abs()
        return float((errors if valid is None else errors[valid.expand_as(errors)]).median())

    return score


METRICS = {
    "median_error": Metric(
        "median_error",
        "Median error",
        "median of the absolute errors, in units of the protocol's peak",
        direction="lower",
        build=_median_error,
    )
}
