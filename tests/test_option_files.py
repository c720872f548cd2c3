"""Option files of other programs become recipes, and what is not followed is named."""

import pytest

from restorer.apps.cli import main
from restorer.errors import UnknownNameError, UsageError
from restorer.training.option_files import as_toml, read_options, recipe_of
from restorer.training.recipes import get_recipe

ESRGAN = """
name: a_run
model_type: ESRGANModel
scale: 4
num_gpu: 2
manual_seed: 7
datasets:
  train: {name: X, type: PairedImageDataset, dataroot_gt: high, dataroot_lq: low, filename_tmpl: '{}x4',
          io_backend: {type: lmdb}, gt_size: 128, use_hflip: true, use_rot: false, num_worker_per_gpu: 6,
          batch_size_per_gpu: 8, dataset_enlarge_ratio: 100, prefetch_mode: ~}
  val: {name: Y, dataroot_gt: other}
network_g: {type: RRDBNet, num_in_ch: 3, num_out_ch: 3, num_feat: 32, num_block: 5}
network_d: {type: VGGStyleDiscriminator, num_in_ch: 3, num_feat: 16}
path: {pretrain_network_g: psnr.pth, strict_load_g: true, resume_state: ~}
train:
  ema_decay: 0.99
  optim_g: {type: Adam, lr: !!float 2e-4, weight_decay: 0, betas: [0.9, 0.99]}
  optim_d: {type: Adam, lr: !!float 3e-4, weight_decay: 0.1, betas: [0.5, 0.99]}
  scheduler: {type: MultiStepLR, milestones: [50, 100], gamma: 0.1}
  total_iter: 4e3
  warmup_iter: -1
  pixel_opt: {type: L1Loss, loss_weight: !!float 1e-2, reduction: mean}
  perceptual_opt: {type: PerceptualLoss, layer_weights: {conv5_4: 1, conv1_2: 0.1}, vgg_type: vgg19,
                   use_input_norm: true, range_norm: false, perceptual_weight: 1.0, style_weight: 0, criterion: l1}
  gan_opt: {type: GANLoss, gan_type: lsgan, real_label_val: 0.9, fake_label_val: 0.0, loss_weight: !!float 5e-3}
  net_d_iters: 2
  net_d_init_iters: 10
  magic: 3
val: {val_freq: 5e3}
logger: {print_freq: 100, save_checkpoint_freq: !!float 5e3, use_tb_logger: true, wandb: {project: ~}}
dist_params: {backend: nccl, port: 29500}
"""
REAL = """
model_type: RealESRGANModel
scale: 2
num_gpu: auto
l1_gt_usm: true
percep_gt_usm: false
gan_gt_usm: false
resize_prob: [0.1, 0.8, 0.1]
jpeg_range2: [20, 80]
second_blur_prob: 0.5
queue_size: 180
datasets:
  train: {type: RealESRGANDataset, dataroot_gt: high, meta_info: list.txt, gt_size: 256, batch_size_per_gpu: 12,
          kernel_list: [iso, aniso], kernel_prob: [3, 1], kernel_prob2: [0.45, 0.25, 0.12, 0.03, 0.12, 0.05],
          blur_sigma2: [0.2, 1], final_sinc_prob: 0.7}
network_g: {type: SRVGGNetCompact, num_in_ch: 3, num_out_ch: 3, num_feat: 64, num_conv: 32, upscale: 2, act_type: prelu}
network_d: {type: UNetDiscriminatorSN, num_in_ch: 3, num_feat: 64, skip_connection: false}
train:
  gan_opt: {type: GANLoss, gan_type: vanilla, loss_weight: 0.1}
  pixel_opt: {type: MSELoss, loss_weight: 1.0}
"""


def read(text, folder):
    path = folder / "options.yml"
    path.write_text(text, encoding="utf-8")
    base, settings, lines = recipe_of(read_options(path))
    recipe = folder / "recipe.toml"
    recipe.write_text(as_toml(base, settings, lines), encoding="utf-8")
    return get_recipe(str(recipe)), lines


def test_an_esrgan_run_means_the_same_here(tmp_path):
    recipe, lines = read(ESRGAN, tmp_path)
    train, data = recipe.train, recipe.data
    assert (recipe.network, recipe.config.features, recipe.config.blocks, recipe.config.scale) == ("esrgan", 32, 5, 4)
    assert (recipe.discriminator.kind, recipe.discriminator.features, recipe.discriminator.side) == ("vgg", 16, 128)
    assert (data.high, data.low, data.crop, data.flip, data.turn, data.threads) == ("high", "low", 128, True, False, 6)
    assert (train.batch, train.seed, train.steps, train.save_every) == (16, 7, 4000, 5000)
    assert (train.g_rate, train.d_rate, train.betas) == (2e-4, 3e-4, (0.9, 0.99))
    assert (recipe.averaging.decay, recipe.start, recipe.cadence.warm_steps) == (0.99, "psnr.pth", 10)
    assert (recipe.schedule.kind, recipe.schedule.milestones, recipe.schedule.factor) == ("steps", (50, 100), 0.1)
    weights = recipe.weights
    assert (weights.pixel, weights.perceptual, weights.style, weights.adversarial) == (0.01, 1.0, 0.0, 0.01)
    assert recipe.features.layers == (("conv5_4", 1.0), ("conv1_2", 0.1))
    assert (recipe.adversary.loss, recipe.adversary.relativistic) == ("least_squares", True)
    assert recipe.adversary.smoothing == 0
    assert sorted(line.split(": ")[0] for line in lines) == [
        "datasets.val.name, datasets.val.dataroot_gt, val.val_freq",
        "dist_params.backend, dist_params.port",
        "path.param_key_g",
        "train.gan_opt.real_label_val",
        "train.magic",
        "train.net_d_init_iters",
        "train.net_d_iters",
        "train.optim_d.betas",
        "train.optim_d.weight_decay",
    ]


def test_a_real_esrgan_run_means_the_same_here(tmp_path):
    recipe, lines = read(REAL, tmp_path)
    first, second = recipe.degradation.first, recipe.degradation.second
    assert (recipe.network, recipe.config.convs, recipe.config.scale) == ("compact", 32, 2)
    assert (recipe.discriminator.kind, recipe.discriminator.skip) == ("unet", False)
    assert (first.directions, second.jpeg, second.blur.chance) == ((0.1, 0.8, 0.1), (20, 80), 0.5)
    assert first.blur.kinds == (0.75, 0.25, 0, 0, 0, 0)
    assert second.blur.kinds == pytest.approx((0.45, 0.25, 0.12, 0.03, 0.12, 0.03), abs=0.02)
    assert (second.blur.sigma, recipe.degradation.final_sinc) == ((0.2, 1.0), 0.7)
    assert (recipe.weights.perceptual, recipe.weights.pixel_kind) == (0.0, "l2")
    assert (recipe.averaging.decay, recipe.schedule.kind) == (0.0, "constant")
    assert sorted(line.split(": ")[0] for line in lines) == [
        "datasets.train.meta_info",
        "num_gpu",
        "percep_gt_usm",
    ]


def test_pairs_that_are_read_are_not_degraded(tmp_path):
    text = REAL.replace("queue_size: 180", "high_order_degradation: false")
    recipe, lines = read(text.replace("dataroot_gt: high", "dataroot_gt: high, dataroot_lq: low"), tmp_path)
    assert (recipe.degradation, recipe.data.low) == (None, "low")
    assert "degradation.sharpen: nothing is degraded in this run" in lines


def test_what_is_not_said_has_basicsr_s_defaults(tmp_path):
    text = (
        ESRGAN.replace(", loss_weight: !!float 1e-2", "")
        .replace(", gamma: 0.1", "")
        .replace("perceptual_weight: 1.0, ", "")
    )
    text = text.replace(", betas: [0.9, 0.99]}", "}").replace(", betas: [0.5, 0.99]}", "}")
    recipe, _ = read(text, tmp_path)
    assert (recipe.weights.pixel, recipe.weights.perceptual) == (1.0, 1.0)
    assert (recipe.schedule.factor, recipe.train.betas) == (0.1, (0.9, 0.999))


def test_a_larger_discriminator_has_one_more_pair(tmp_path):
    text = ESRGAN.replace("num_feat: 16}", "num_feat: 16, input_size: 256}").replace("gt_size: 128", "gt_size: 256")
    recipe, _ = read(text, tmp_path)
    assert (recipe.discriminator.side, recipe.discriminator.halvings) == (256, 6)


def test_models_without_a_discriminator_leave_it_out(tmp_path):
    recipe, lines = read(ESRGAN.replace("ESRGANModel", "SRModel"), tmp_path)
    assert (recipe.discriminator, recipe.weights.adversarial, recipe.name) == (None, 0.0, "esrgan_psnr_x4")
    assert any(line.endswith("SRModel has no discriminator") for line in lines)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("total_iter: 4e3", "total_iter: [1]"),
        ("total_iter: 4e3", "total_iter: .inf"),
        ("manual_seed: 7", "manual_seed: abc"),
        ("{conv5_4: 1, conv1_2: 0.1}", "[1]"),
        ("milestones: [50, 100]", "milestones: 5"),
        ("pixel_opt: {type: L1Loss, loss_weight: !!float 1e-2, reduction: mean}", "pixel_opt: 5"),
        ("network_d: {type: VGGStyleDiscriminator, num_in_ch: 3, num_feat: 16}", ""),
        ("network_d: {type: VGGStyleDiscriminator, num_in_ch: 3, num_feat: 16}", "network_d: 5"),
        ("{type: RRDBNet, num_in_ch: 3, num_out_ch: 3, num_feat: 32, num_block: 5}", "RRDBNet"),
        ("lr: !!float 2e-4", "lr: !!float x"),
        ("scale: 4", "scale: []"),
    ],
)
def test_values_of_a_wrong_kind_are_one_line(tmp_path, old, new):
    assert old in ESRGAN
    with pytest.raises((UsageError, UnknownNameError)) as told:
        read(ESRGAN.replace(old, new), tmp_path)
    assert "\n" not in str(told.value)


def test_odd_texts_survive(tmp_path):
    text = ESRGAN.replace("dataroot_gt: high", 'dataroot_gt: "2020"').replace("psnr.pth", '"\U0001f600.pth"')
    recipe, lines = read(text.replace("magic: 3", "magic: |\n    two\n    lines"), tmp_path)
    assert (recipe.data.high, recipe.start) == ("2020", "\U0001f600.pth")
    assert any(line.startswith("train.magic") for line in lines)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (ESRGAN.replace("ESRGANModel", "ESRGANModels"), UnknownNameError, "did you mean 'ESRGANModel'"),
        (ESRGAN.replace("RRDBNet", "RRDBNets"), UnknownNameError, "did you mean 'RRDBNet'"),
        (ESRGAN.replace("gt_size: 128", "gt_size: 96"), UsageError, "takes pictures of side 128"),
        ("a: [", UsageError, "is no YAML"),
        ("a: 1", UsageError, "it has no network_g"),
        ("!!python/object/apply:os.system ['true']", UsageError, "is no YAML"),
    ],
)
def test_files_that_cannot_be_followed_are_refused(tmp_path, text, error, message):
    with pytest.raises(error, match=message):
        read(text, tmp_path)


def test_the_command_lists_what_it_does_not_follow(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "options.yml").write_text(REAL, encoding="utf-8")
    assert main(["models", "convert", "options.yml", "recipe.toml"]) == 0
    told = capsys.readouterr()
    assert told.out.startswith("recipe.toml: realesrgan_x4 with ")
    assert len(told.err.splitlines()) == 3
    assert get_recipe("recipe.toml").config.scale == 2
    assert main(["models", "convert", "options.yml", "recipe.toml"]) == 2
    assert main(["models", "convert", "options.yml", "recipe.json"]) == 2
