from .optim import AdaGrad

class FMClassifier:
    def __init__(
        self,
        *,
        n_factors: int = ...,
        weight_optimizer: AdaGrad | None = ...,
        latent_optimizer: AdaGrad | None = ...,
        seed: int | None = ...,
    ) -> None: ...
    def learn_one(self, x: dict[str, float], y: bool) -> None: ...
    def predict_proba_one(self, x: dict[str, float]) -> dict[bool, float]: ...
