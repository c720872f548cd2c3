"""Command lines and option files of pytorch-CycleGAN-and-pix2pix become recipes, and what is not followed is named."""

import shlex

import numpy as np
import pytest
from PIL import Image

from restorer.apps.cli import main
from restorer.errors import UnknownNameError, UsageError
from restorer.training.build import checked_traits
from restorer.training.option_files import as_toml
from restorer.training.option_words import read_option_file, read_words, recipe_of_words
from restorer.training.recipes import get_recipe

PIX2PIX = (
    "python train.py --dataroot ./datasets/facades --name facades_pix2pix --model pix2pix --netG unet_256 "
    "--direction BtoA --lambda_L1 100 --dataset_mode aligned --norm batch --pool_size 0"
)
"""scripts/train_pix2pix.sh"""
CYCLEGAN = (
    "python train.py --dataroot ./datasets/maps --name maps_cyclegan --model cycle_gan --pool_size 50 --no_dropout"
)
"""scripts/train_cyclegan.sh"""
OPTION_FILE = """----------------- Options ---------------
               batch_size: 2                             \t[default: 1]
                    beta1: 0.5                           
          checkpoints_dir: ./checkpoints                 
                crop_size: 128                           \t[default: 256]
                 dataroot: ./datasets/horse2zebra        \t[default: None]
             dataset_mode: unaligned                     
                direction: AtoB                          
                  gpu_ids: 0                             
                  isTrain: True                          \t[default: None]
                load_size: 143                           \t[default: 286]
          max_dataset_size: inf                           
                    model: cycle_gan                     
                 n_epochs: 100                           
                   new_one: 3                             
               no_dropout: True                          
                  no_flip: True                          \t[default: False]
                 no_html: False                         
                     netG: resnet_6blocks                \t[default: resnet_9blocks]
                     norm: instance                      
----------------- End -------------------
"""  # noqa: W291 -- as it is written there


def converted(words, folder):
    base, settings, lines = recipe_of_words(read_words(shlex.split(words) if isinstance(words, str) else words))
    path = folder / "recipe.toml"
    path.write_text(as_toml(base, settings, lines), encoding="utf-8")
    recipe = get_recipe(str(path))
    checked_traits(recipe)
    return recipe, lines


@pytest.fixture
def facades(tmp_path, monkeypatch):
    """Seven pairs side by side in datasets/facades/train, and three and five pictures in datasets/horse2zebra."""
    monkeypatch.chdir(tmp_path)
    for folder, count in (("facades/train", 7), ("horse2zebra/trainA", 3), ("horse2zebra/trainB", 5)):
        (tmp_path / "datasets" / folder).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(np.zeros((4, 8, 3), np.uint8)).save(tmp_path / "datasets" / folder / f"{number}.png")
    return tmp_path


def test_the_published_pix2pix_run_means_the_same_here(facades):
    recipe, lines = converted(PIX2PIX, facades)
    assert lines == []
    assert recipe.network == "pix2pix"
    config = recipe.config
    assert (config.levels, config.features, config.norm, config.dropout) == (8, 64, "batch", True)
    judge = recipe.discriminator
    assert (judge.kind, judge.channels, judge.features, judge.layers, judge.norm) == ("patch", 6, 64, 3, "batch")
    assert (recipe.weights.kind, recipe.weights.pixel, recipe.weights.pool) == ("paired", 100.0, 0)
    assert recipe.adversary.loss == "non_saturating"
    data, train = recipe.data, recipe.train
    assert (data.root, data.layout, data.direction, data.phase) == ("datasets/facades", "aligned", "b2a", "train")
    assert (data.preprocess, data.load_size, data.crop, data.flip) == ("resize_and_crop", 286, 256, True)
    assert (train.g_rate, train.d_rate, train.betas, train.batch) == (2e-4, 2e-4, (0.5, 0.999), 1)
    schedule = recipe.schedule
    assert (train.steps, schedule.kind, schedule.milestones) == (1400, "linear", (700,))  # 200 and 100 times 7


def test_the_published_cyclegan_run_means_the_same_here(facades):
    recipe, lines = converted(CYCLEGAN, facades)
    assert len(lines) == 1
    assert lines[0].startswith("--n_epochs, --n_epochs_decay: pictures cannot be counted, so steps are the recipe's")
    config, judge, weights = recipe.config, recipe.discriminator, recipe.weights
    assert (recipe.network, config.blocks, config.features) == ("cyclegan", 9, 64)
    assert (config.norm, config.dropout) == ("instance", False)
    assert (judge.channels, judge.layers, judge.norm) == (3, 3, "instance")
    assert (weights.kind, weights.cycle, weights.cycle_b, weights.identity) == ("unpaired", 10.0, 10.0, 0.5)
    assert (weights.pool, recipe.adversary.loss, recipe.data.layout) == (50, "least_squares", "unaligned")
    assert (recipe.schedule.kind, recipe.schedule.flat) == ("linear", 0.5)
    assert recipe.train.steps == get_recipe("cyclegan_256").train.steps


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        # docs/tips.md: rectangular pictures, and high resolution
        ("--preprocess crop --crop_size 256", {"data.preprocess": "crop", "data.crop": 256}),
        (
            "--preprocess scale_width_and_crop --load_size 1024 --crop_size 360",
            {"data.preprocess": "scale_width_and_crop", "data.load_size": 1024, "data.crop": 360},
        ),
        # scripts/test_before_push.py
        ("--n_epochs 1 --n_epochs_decay 0 --save_latest_freq 10 --print_freq 1",
         {"train.steps": 5, "schedule.milestones": [5], "train.save_every": 10, "train.log_every": 1}),
        ("--batch_size 2 --n_epochs 3 --n_epochs_decay 1",
         {"train.batch": 2, "train.steps": 12, "schedule.milestones": [9], "train.log_every": 50}),  # 3 steps an epoch
        ("--n_epochs 0 --n_epochs_decay 4", {"train.steps": 20, "schedule.flat": 0.0}),
        ("--niter 10 --niter_decay 10", {"train.steps": 100, "schedule.milestones": [50]}),
        ("--lr_policy step --lr_decay_iters 3 --n_epochs 10 --n_epochs_decay 0",
         {"schedule.kind": "steps", "schedule.milestones": [15, 30, 45], "schedule.factor": 0.1}),
        ("--lr_policy cosine --n_epochs 4", {"train.steps": 20, "schedule.periods": [20], "schedule.floor": 0.0}),
        ("--lr_policy plateau --n_epochs 4 --n_epochs_decay 1", {"train.steps": 25, "schedule.kind": "constant"}),
        ("--netG resnet_6blocks --ngf 32", {"network": "cyclegan", "config.blocks": 6, "config.features": 32}),
        ("--netG unet_128 --crop_size 128", {"network": "pix2pix", "config.levels": 7, "data.crop": 128}),
        ("--netD n_layers --n_layers_D 4 --ndf 32", {"discriminator.layers": 4, "discriminator.features": 32}),
        ("--netD pixel", {"discriminator.kind": "pixel", "discriminator.channels": 3}),
        ("--lambda_A 5 --lambda_B 7 --lambda_identity 0",
         {"weights.cycle": 5.0, "weights.cycle_b": 7.0, "weights.identity": 0.0}),
        ("--gan_mode vanilla --pool_size 10", {"adversary.loss": "non_saturating", "weights.pool": 10}),
        ("--no_lsgan", {"adversary.loss": "non_saturating"}),
        ("--norm batch", {"config.norm": "batch", "discriminator.norm": "batch"}),
        ("--lr 1e-4 --beta1 0.9", {"train.g_rate": 1e-4, "train.d_rate": 1e-4, "train.betas": [0.9, 0.999]}),
        ("--no_flip --num_threads 0", {"data.flip": False, "data.threads": 1}),
        ("--which_direction BtoA --loadSize 200 --fineSize 128",
         {"data.direction": "b2a", "data.load_size": 200, "data.crop": 128}),
        ("--load_s=300", {"data.load_size": 300}),  # short forms are those of argparse
    ],
)  # fmt: skip
def test_each_option_has_its_place(facades, words, expected):
    said = read_words(["--dataroot", "datasets/horse2zebra", *words.split()])
    base, settings, _ = recipe_of_words(said)
    assert base == "cyclegan_256"
    assert {name: settings[name] for name in expected} == expected
    if "n_epochs 0" in words:
        assert "schedule.milestones" not in settings
    converted(["--dataroot", "datasets/horse2zebra", *words.split()], facades)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--gpu_ids -1", "--gpu_ids: say it to `restorer train`: --device cpu"),
        ("--gpu_ids 0,1,2", "--gpu_ids: say it to `restorer train`: --processes 3"),
        ("--gpu_ids 2", "--gpu_ids: say it to `restorer train`: --device cuda:2"),
        ("--display_id -1 --no_html", "--display_id, --no_html: a run is logged to its own folder and to TensorBoard"),
        ("--init_type xavier", "--init_type: weights start from N(0, 0.02)"),
        ("--continue_train --epoch_count 5", "--continue_train, --epoch_count: runs of other programs cannot be gone"),
        ("--max_dataset_size 2", "--max_dataset_size: all pictures are used, in as many steps; put fewer"),
        ("--serial_batches", "--serial_batches: pictures are always shuffled"),
        ("--n_layers_D 5", "--n_layers_D: is only for --netD n_layers"),
        ("--lambda_L1 3", "--lambda_L1: cycle_gan has no such option"),
        ("--gan_mode wgangp", "--gan_mode wgangp: is trained as it is there, without its penalty; set"),
        ("--lr_policy cosine", "--lr_policy cosine: is followed to where the rate is 0"),
        ("--lr_policy plateau", "--lr_policy plateau: the rate is constant here"),
    ],
)
def test_what_is_not_followed_is_named_with_the_reason(facades, words, line):
    _, lines = converted(["--dataroot", "datasets/horse2zebra", *words.split()], facades)
    assert len(lines) == 1
    assert lines[0].startswith(line)


def test_what_is_as_usual_is_not_worth_a_line(facades):
    words = "--dataroot datasets/horse2zebra --gpu_ids 0 --init_type normal --init_gain 0.02 --epoch_count 1 --verbose"
    assert converted(words, facades)[1] == []
    few = "--dataroot datasets/horse2zebra --max_dataset_size 2 --n_epochs 1 --n_epochs_decay 0"
    assert converted(few, facades)[0].train.steps == 2


def test_a_resnet_may_play_pix2pix(facades):
    recipe, _ = converted("--model pix2pix --netG resnet_9blocks --dataroot datasets/facades --input_nc 1", facades)
    assert (recipe.network, recipe.config.blocks, recipe.config.in_channels) == ("cyclegan", 9, 1)
    assert (recipe.config.dropout, recipe.discriminator.channels) == (True, 4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--lamda_L1 3", "no option of train.py named '--lamda_L1'; did you mean '--lambda_L1'?"),
        ("--lambda 3", "--lambda may be --lambda_A or --lambda_B or --lambda_L1 or --lambda_identity; write it out"),
        ("--batch_size many", "--batch_size takes a whole number; got 'many'"),
        ("--lr x", "--lr takes a number; got 'x'"),
        ("--lr", "--lr takes a value, such as --lr 0.0002"),
        ("--name --lr 3", "--name takes a value"),
        ("--no_flip=3", "--no_flip is there or not, and takes no value; got '3'"),
        ("--lr 3 more", "'more' belongs to no option of train.py"),
        ("pix2pix", "'pix2pix' belongs to no option of train.py"),
        ("--model colorization", "no --model that is trained here named 'colorization'; known: cycle_gan, pix2pix"),
        ("--netG unet_512", "no --netG named 'unet_512'; did you mean 'unet_"),
        ("--netD basics", "no --netD named 'basics'; did you mean 'basic'?"),
        ("--direction AtoC", "no --direction named 'AtoC'; did you mean 'AtoB'?"),
        ("--dataset_mode single", "no --dataset_mode named 'single'"),
        ("--gan_mode hinge", "no --gan_mode named 'hinge'"),
        ("--lr_policy exp", "no --lr_policy named 'exp'"),
        ("--norm none", "config: norm must be instance or batch, got none"),
        ("--norm syncbatch", "norm takes batch or instance or none; got 'syncbatch'"),
        ("--preprocess resize", "data.preprocess takes resize_and_crop or crop or"),
        ("--crop_size 512", "load_size must be at least crop, 512"),
        ("--n_epochs 0 --n_epochs_decay 0", "must make epochs to train in; got 0 and 0"),
        ("--batch_size 0", "batch must be at least 1"),
        ("--model pix2pix --dataset_mode unaligned", "needs pairs, and data.layout=unaligned has none"),
        ("--input_nc 1", "channels"),  # what is its own identity has as many
    ],
)
def test_what_cannot_be_trained_is_one_line(facades, words, message):
    with pytest.raises((UsageError, UnknownNameError)) as told:
        converted(words, facades)
    assert message in str(told.value)
    assert "\n" not in str(told.value)


# ---- option files


def test_an_option_file_means_the_same_here(facades):
    path = facades / "train_opt.txt"
    path.write_text(OPTION_FILE, encoding="utf-8")
    said, unknown = read_option_file(path)
    assert said == {
        "batch_size": 2, "crop_size": 128, "dataroot": "./datasets/horse2zebra", "load_size": 143, "no_flip": True,
        "netG": "resnet_6blocks",
    }  # fmt: skip
    assert unknown == ["--new_one: is not known here"]
    base, settings, lines = recipe_of_words(said)
    assert (base, lines) == ("cyclegan_256", [])
    assert settings["train.steps"] == 600  # 200 epochs of 3 batches of 2


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("model: cycle_gan", "", "is no train_opt.txt: it has no lines for model and dataroot"),
        ("isTrain: True", "isTrain: False", "are options of a test; give train_opt.txt"),
        ("batch_size: 2", "batch_size: two", "--batch_size takes a whole number; got 'two'"),
        ("no_flip: True", "no_flip: yes", "--no_flip takes True or False; got 'yes'"),
    ],
)
def test_option_files_that_cannot_be_followed_are_refused(tmp_path, old, new, message):
    path = tmp_path / "train_opt.txt"
    assert old in OPTION_FILE
    path.write_text(OPTION_FILE.replace(old, new), encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        read_option_file(path)
    with pytest.raises(UsageError, match="cannot read"):
        read_option_file(tmp_path / "nowhere.txt")


# ---- commands


def test_the_command_prints_a_recipe_and_tells_what_it_does_not_follow(facades, capsys):
    assert main(["models", "recipe", *shlex.split(PIX2PIX), "--gpu_ids", "-1", "--no_html"]) == 0
    told = capsys.readouterr()
    (facades / "mine.toml").write_text(told.out, encoding="utf-8")
    assert get_recipe("mine.toml").data.direction == "b2a"
    assert told.err.splitlines() == [
        "restorer: not followed: --no_html: a run is logged to its own folder and to TensorBoard",
        "restorer: not followed: --gpu_ids: say it to `restorer train`: --device cpu",
    ]
    assert main(["models", "recipe"]) == 2
    assert main(["models", "recipe", "--unheard_of", "3"]) == 2
    assert "no option of train.py named '--unheard_of'" in capsys.readouterr().err


def test_the_command_converts_an_option_file(facades, capsys):
    (facades / "train_opt.txt").write_text(OPTION_FILE, encoding="utf-8")
    assert main(["models", "convert", "train_opt.txt", "recipe.toml"]) == 0
    told = capsys.readouterr()
    assert told.out.startswith("recipe.toml: cyclegan_256 with ")
    assert told.err == "restorer: not followed: --new_one: is not known here\n"
    recipe = get_recipe("recipe.toml")
    assert (recipe.config.blocks, recipe.data.crop, recipe.data.flip) == (6, 128, False)
    assert main(["models", "convert", "train_opt.txt", "recipe.toml"]) == 2
