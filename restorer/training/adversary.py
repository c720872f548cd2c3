"""What is asked of discriminators in every game: a loss, penalties, and what they are shown in place of pictures."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from restorer.errors import unknown_name
from restorer.losses.adversarial import GAN_LOSSES, Logits, gan_loss
from restorer.losses.penalties import Judge, clip_weights, one_centred, zero_centred
from restorer.training.augment import DIFF_AUGMENT, AdaptiveConfig, adapted, adaptive_augment, diff_augment
from restorer.training.objective import Batch, Now, Penalty


@dataclass(frozen=True, kw_only=True)
class AdversaryConfig:
    """How the discriminator is taught. Zero leaves a thing out."""

    loss: str = "non_saturating"
    """A name of `GAN_LOSSES`."""
    relativistic: bool = False
    """Judge against the mean of the other side."""
    smoothing: float = 0.0
    """Share of every real picture that counts as fake."""
    instance_noise: float = 0.0
    """Deviation of noise added to all that the discriminator sees; it falls to 0 over `noise_steps`."""
    noise_steps: int = 10_000
    r1: float = 0.0
    """Weight of R1 (gamma): times half the squared gradient at real."""
    r2: float = 0.0
    """The same at fake."""
    gradient_penalty: float = 0.0
    """Weight of WGAN-GP's penalty between real and fake."""
    every: int = 16
    """Steps from one payment of R1 and R2 to the next."""
    clip_weights: float = 0.0
    """Limit of every weight of the discriminator, after it has learned."""
    augment: str = ""
    """DiffAugment: some of color, translation, cutout, joined by commas; or "ada"."""
    ada_target: float = 0.6
    ada_pictures: float = 500_000

    def __post_init__(self) -> None:
        if self.loss not in GAN_LOSSES:
            raise unknown_name("adversarial loss", self.loss, GAN_LOSSES)
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"smoothing must be in [0, 1), got {self.smoothing}")
        if self.every < 1 or self.noise_steps < 1 or self.ada_pictures < 1:
            raise ValueError("every, noise_steps and ada_pictures must be at least 1")
        for name in filter(None, self.augment.split(",")):
            if name not in (*DIFF_AUGMENT, "ada") or (name == "ada" and self.augment != "ada"):
                raise unknown_name("augmentation", name, [*DIFF_AUGMENT, "ada"])


class Adversary(nn.Module):
    """One discriminator's teacher. Its buffer is the probability that ADA has found."""

    probability: Tensor

    def __init__(self, config: AdversaryConfig) -> None:
        super().__init__()
        self.config = config
        self.loss = gan_loss(config.loss, relativistic=config.relativistic, smoothing=config.smoothing)
        self.register_buffer("probability", torch.zeros(()))

    def shown(self, x: Tensor, now: Now) -> Tensor:
        """(N, C, H, W) -> same: what the discriminator sees of it."""
        config = self.config
        if config.augment == "ada":
            x = adaptive_augment(x, self.probability, now.rng)
        elif config.augment:
            x = diff_augment(x, config.augment, now.rng)
        deviation = config.instance_noise * max(0.0, 1 - now.step / config.noise_steps)
        if deviation:
            x = x + deviation * torch.randn(x.shape, generator=now.rng, device=x.device).to(x.dtype)
        return x

    def g_term(self, judge: Judge, real: Tensor, fake: Tensor, now: Now) -> Tensor:
        """judge, (N, C, H, W), same -> (): the generator's wish; real is looked at only where the wish needs it."""
        on_real = None
        if self.loss.paired:
            with torch.no_grad():
                on_real = judge(self.shown(real, now))
        return self.loss.g(on_real, judge(self.shown(fake, now)))

    def d_term(self, judge: Judge, real: Tensor, fake: Tensor, now: Now) -> Tensor:
        """judge, (N, C, H, W), same -> (): the discriminator's wish; ADA learns from what it says of real."""
        on_real, on_fake = judge(self.shown(real, now)), judge(self.shown(fake, now))
        if self.config.augment == "ada":
            self._adapt(on_real)
        return self.loss.d(on_real, on_fake)

    def penalties(self, judge: Judge, names: tuple[str, str]) -> Mapping[str, Penalty]:
        """What the discriminator pays; `names` are the batch's entries of real and fake."""
        real, fake = names
        config, due = self.config, {}

        def at(name: str, weight: float) -> Callable[[Batch, Now], Tensor]:
            return lambda batch, now: weight * zero_centred(lambda x: judge(self.shown(x, now)), batch[name])

        if config.r1:
            due["d/r1"] = Penalty(player="d", every=config.every, fn=at(real, config.r1))
        if config.r2:
            due["d/r2"] = Penalty(player="d", every=config.every, fn=at(fake, config.r2))
        if weight := config.gradient_penalty:
            due["d/gradient_penalty"] = Penalty(
                player="d",
                every=1,
                fn=lambda batch, now: weight * one_centred(judge, batch[real], batch[fake], now.rng),
            )
        return due

    def after(self, discriminator: nn.Module) -> None:
        """The discriminator has learned."""
        if self.config.clip_weights:
            clip_weights(discriminator, self.config.clip_weights)

    @torch.no_grad()
    def _adapt(self, on_real: Logits) -> None:
        logits = on_real if isinstance(on_real, Tensor) else on_real[0]
        config = AdaptiveConfig(target=self.config.ada_target, pictures=self.config.ada_pictures)
        self.probability.copy_(adapted(self.probability, logits, config))
