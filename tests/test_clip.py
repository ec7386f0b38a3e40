"""Models of images and texts: both towers, names by words that the text tower reads, images found by free text."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from huggingface_hub import constants
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import clip_toy
from clip_toy import BACKBONE, COLOURS
from hub_stand_in import Hub, point_at, serving
from shoal import ImageClusterer
from shoal.cli import main
from shoal.config import ClusterConfig
from shoal.doctor import findings
from shoal.embeddings import EmbeddingStore
from shoal.encoder import clip_towers, needs
from shoal.encoder.clip import build
from shoal.encoder.prepared import PreparedEncoder, prepare
from shoal.encoder.probes import probe_images
from shoal.encoder.text_tower import TextTower
from shoal.errors import ConfigError, RequestError, ShoalError, WeightsError
from shoal.evaluate.evaluate import evaluate
from shoal.names import classes, free_text, guesses_file, own_words
from shoal.progress import Progress
from shoal.rundir import RunDir
from shoal.runfiles import GUESSES, TEXT_TOWER

EACH = 12
WORDS = "red\nblue\n\n  green \nyellow\nRed\n"


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model's weights as a file; open_clip lists it from here on."""
    folder = tmp_path_factory.mktemp("toy")
    clip_toy.add_config(folder)
    return clip_toy.save(folder)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clip_toy.paint(tmp_path_factory.mktemp("source") / "pictures", EACH)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("words") / "words.txt"
    path.write_text(WORDS, encoding="utf-8")
    return path


def fit(out: Path, source: Path, toy: Path, **more: object) -> RunDir:
    clusterer = ImageClusterer(clusters=len(COLOURS), backbone=BACKBONE, weights=toy, out=out, **more)  # type: ignore[arg-type]
    return clusterer.fit(source).run_dir_


@pytest.fixture(scope="module")
def kept(toy: Path, source: Path, words: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run whose clusters are named by four words of our own. Nobody changes it."""
    return fit(tmp_path_factory.mktemp("kept") / "run.shoal", source, toy, vocabulary=words)


@pytest.fixture
def no_open_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the extra is not installed."""
    there = needs.find_spec
    monkeypatch.setattr(needs, "find_spec", lambda name: None if name == "open_clip" else there(name))


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing was fetched yet, and nobody answers."""
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def reference(toy: Path) -> torch.nn.Module:
    """The model as open_clip itself reads it."""
    return open_clip.create_model(clip_toy.NAME, str(toy)).eval().requires_grad_(False)


def prepared(toy: Path, **more: str) -> PreparedEncoder:
    return prepare(BACKBONE, str(toy), more.get("features", "default"), "crop", Progress())


def tower_of(toy: Path) -> TextTower:
    path = prepared(toy).text_tower
    assert path is not None
    return TextTower.open(path)


def names(run: RunDir) -> dict[str, set[str]]:
    """Names of the clusters in which each colour's pictures are."""
    table = ImageClusterer.load(run.root).clusters_
    return table.groupby(table["path"].str.split("/").str[0])["name"].agg(set).to_dict()


def shoal(*arguments: object) -> int:
    with pytest.raises(SystemExit) as done:
        main([str(word) for word in arguments])
    return int(done.value.code or 0)


# -- the towers --------------------------------------------------------------------------------------------------------


def test_features_are_in_the_space_of_texts(toy: Path) -> None:
    pixels = probe_images(clip_toy.SIDE)[:4]
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in clip_toy.open_clip_preparation())
    expected = reference(toy).encode_image((torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std).numpy()
    found = prepared(toy).engine("cpu").infer(pixels)
    assert prepared(toy).cpu_engine == "openvino"
    cosines = (found * expected).sum(axis=1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosines.min() > 0.999


def test_texts_are_read_as_open_clip_reads_them(toy: Path) -> None:
    texts = ["red", "a photo of something blue, with many more words than another", "", "ünïcode"]
    tokens = open_clip.get_tokenizer(clip_toy.NAME)(texts)
    expected = reference(toy).encode_text(tokens, normalize=True).numpy()
    tower = tower_of(toy)
    np.testing.assert_allclose(tower.rows(texts), expected, atol=1e-5)
    np.testing.assert_allclose(tower.rows(texts[:1]), expected[:1], atol=1e-5)  # whatever lies beside it
    assert tower.scale == pytest.approx(float(reference(toy).logit_scale.exp()))


def test_a_word_is_the_mean_of_its_prompts(toy: Path) -> None:
    model, tokenizer = reference(toy), open_clip.get_tokenizer(clip_toy.NAME)
    found = tower_of(toy).words(["red", "something else"], Progress())
    for row, word in enumerate(["red", "something else"]):
        prompts = [prompt(word) for prompt in open_clip.SIMPLE_IMAGENET_TEMPLATES]
        mean = model.encode_text(tokenizer(prompts), normalize=True).mean(dim=0)
        np.testing.assert_allclose(found[row], (mean / mean.norm()).numpy(), atol=1e-5)


def test_weights_that_torch_saved_are_the_same_model(toy: Path, tmp_path: Path) -> None:
    state = {f"module.{name}": tensor for name, tensor in load_file(toy).items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "toy.pt")
    towers = build(BACKBONE, "default", "crop", tmp_path / "toy.pt", None)
    images = torch.rand(2, 3, clip_toy.SIDE, clip_toy.SIDE)
    torch.testing.assert_close(towers.encoder(images), reference(toy).encode_image(images))
    assert towers.spec.weights_source == "file toy.pt"


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("a pickle ran code",)


def test_no_weights_run_code(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(_Evil(), tmp_path / "evil.pt")
    with pytest.raises(WeightsError, match=r"evil\.pt"):
        build(BACKBONE, "default", "crop", tmp_path / "evil.pt", None)
    assert "ran code" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda state: state.pop("text_projection"), "the weights do not fit clip:shoal-toy"),
        (lambda state: state.update({"more": torch.zeros(1)}), r"1 not known \(first 'more'\)"),
        (lambda state: state.update({"visual.proj": torch.zeros(3, 3)}), "the weights do not fit clip:shoal-toy"),
        (lambda state: state.update({"positional_embedding": torch.zeros(24, 3)}), "the weights do not fit"),
        (lambda state: state.clear(), "the weights do not fit"),
    ],
)
def test_weights_of_another_model_are_refused(change: object, told: str, toy: Path, tmp_path: Path) -> None:
    state = load_file(toy)
    change(state)  # type: ignore[operator]
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match=told) as caught:
        build(BACKBONE, "default", "crop", tmp_path / "other.safetensors", None)
    assert "\n" not in str(caught.value)


def test_a_damaged_file_is_named(toy: Path, tmp_path: Path) -> None:
    (tmp_path / "noise.safetensors").write_bytes(b"no weights at all")
    with pytest.raises(WeightsError, match=r"noise\.safetensors cannot be read"):
        build(BACKBONE, "default", "crop", tmp_path / "noise.safetensors", None)


def test_the_mean_of_an_image_and_its_mirror_image_is_in_the_space_of_texts_too(toy: Path) -> None:
    encoder = build(BACKBONE, "best", "crop", toy, None).encoder
    images = torch.rand(2, 3, clip_toy.SIDE, clip_toy.SIDE)
    both = reference(toy).encode_image(images) + reference(toy).encode_image(images.flip(-1))
    torch.testing.assert_close(encoder(images), both / 2)


@pytest.mark.parametrize(
    ("backbone", "told"),
    [
        ("clip:ViT-B-61/openai", "did you mean clip:ViT-B-16"),
        ("clip:", "expected clip:NAME/TAG of a model of open_clip"),
        ("clip:ViT-B-16/laion2b", "expected clip:ViT-B-16/TAG with one of openai, laion400m_e31"),
        ("clip:ViT-B-16", "names no weights; expected clip:ViT-B-16/TAG with one of openai"),
        ("clip:ViT-L-14", "whose images are prepared in 2 ways; expected clip:ViT-L-14/TAG with one of openai"),
        (BACKBONE, "names no weights; expected clip:shoal-toy/TAG, or --weights FILE"),
        ("clip:roberta-ViT-B-32/laion2b_s12b_b32k", "whose text tower is not open_clip's own"),
        ("clip:coca_ViT-B-32/laion2b_s13b_b90k", "whose text tower is not open_clip's own"),
    ],
)
def test_a_model_that_is_not_known_is_told_with_what_may_have_been_meant(backbone: str, told: str, toy: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        prepare(backbone, None, "default", "crop", Progress())
    assert told in str(caught.value)
    assert repr(backbone) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_text_tower_s_encoder_has_no_map(toy: Path) -> None:
    with pytest.raises(ConfigError, match=r"--features has value 'map', but clip:shoal-toy has only default and best"):
        prepared(toy, features="map")


def test_tags_say_how_images_are_prepared_and_which_activation_the_weights_learned_with() -> None:
    openai = clip_towers.asked("clip:ViT-B-32/openai")
    assert (openai.name, openai.resize, openai.interpolation) == ("ViT-B-32-quickgelu", "crop", "bicubic")
    assert openai.mean == pytest.approx(open_clip.OPENAI_DATASET_MEAN)
    assert clip_towers.asked("clip:ViT-B-32/laion2b_s34b_b79k").name == "ViT-B-32"
    siglip = clip_towers.asked("clip:ViT-B-16-SigLIP/webli")
    assert (siglip.mean, siglip.std, siglip.resize) == ((0.5,) * 3, (0.5,) * 3, "squash")
    for name, tag in open_clip.list_pretrained():
        if open_clip.get_pretrained_cfg(name, tag).get("quick_gelu"):
            asked = f"clip:{name}/{tag}"
            assert open_clip.get_model_config(clip_towers.asked(asked).name)["quick_gelu"], asked


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub of its own, from which nothing was fetched yet."""
    with serving(Hub()) as served:
        point_at(served.url, monkeypatch)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf-cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield served


def put(hub: Hub, name: str, files: dict[str, bytes]) -> None:
    hub.create(name, private=False).commit(files, "files")
    hub.large |= {hashlib.sha256(data).hexdigest(): data for data in files.values()}


def test_weights_come_from_the_hub_by_the_tag(toy: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    put(hub, "me/toy", {"open_clip_model.safetensors": toy.read_bytes()})
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, clip_toy.NAME, {"colours": {"hf_hub": "me/toy/"}})
    towers = build(f"{BACKBONE}/colours", "default", "crop", None, None)
    assert towers.spec.weights_source == "hub me/toy"
    assert towers.spec.architecture == BACKBONE
    images = torch.rand(2, 3, clip_toy.SIDE, clip_toy.SIDE)
    torch.testing.assert_close(towers.encoder(images), reference(toy).encode_image(images))


@pytest.mark.usefixtures("no_hub")
def test_a_hub_that_does_not_answer_is_told_with_the_option_that_needs_none() -> None:
    with pytest.raises(WeightsError, match=r"could not be fetched from the hub .* pass --weights FILE"):
        build("clip:ViT-B-32/openai", "default", "crop", None, None)
    with pytest.raises(WeightsError, match=r"the tokenizer of .* is not on this machine .* pass --tokenizer FOLDER"):
        build("clip:ViT-B-16-SigLIP/webli", "default", "crop", None, None)


@pytest.mark.parametrize(
    ("backbone", "packages", "told"),
    [
        (
            "clip:ViT-B-32/openai",
            ("open_clip_torch",),
            "needs open_clip_torch, which is not installed: pip install open_clip_torch",
        ),
        (
            "resnet50",
            ("torchvision", "timm"),
            "needs torchvision, timm, which are not installed: pip install torch torchvision timm",
        ),
    ],
)
def test_a_missing_extra_is_named_by_its_packages(
    backbone: str, packages: tuple[str, ...], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, version = needs.find_spec, metadata.version

    def version_of(name: str) -> str:
        if name in packages:
            raise metadata.PackageNotFoundError(name)
        return version(name)

    absent = [needs.MODULES.get(package, package) for package in packages]
    monkeypatch.setattr(needs, "find_spec", lambda name: None if name in absent else spec(name))
    monkeypatch.setattr(metadata, "version", version_of)
    said: list[str] = []
    progress = Progress()
    monkeypatch.setattr(progress, "say", said.append)
    with pytest.raises(ConfigError) as caught:
        prepare(backbone, None, "default", "crop", progress)
    assert said == []  # nothing of preparing, which cannot begin
    assert str(caught.value) == f"the backbone {backbone} {told}"


@pytest.mark.usefixtures("no_open_clip")
def test_the_doctor_says_what_the_extra_adds() -> None:
    told = [line for _, line in findings() if line.startswith("open_clip_torch")]
    assert told == ["open_clip_torch: not installed; pip install open_clip_torch adds --backbone clip:…, images found "
                    "by free text"]  # fmt: skip


# -- a tokenizer that is not open_clip's own ---------------------------------------------------------------------------

OTHER = "shoal-toy-other"


@pytest.fixture(scope="module")
def other(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Weights of a model like SigLIP, whose tokenizer the hub has, and a folder with that tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("other")
    text = {**clip_toy.CONFIG["text_cfg"], "vocab_size": 8, "hf_tokenizer_name": "me/tokenizer", "pool_type": "last",
            "no_causal_mask": True, "tokenizer_kwargs": {"clean": "canonicalize"}}  # type: ignore[dict-item]  # fmt: skip
    (folder / f"{OTHER}.json").write_text(json.dumps({**clip_toy.CONFIG, "text_cfg": text, "custom_text": True}))
    open_clip.add_model_config(folder / f"{OTHER}.json")
    words = {word: number for number, word in enumerate(["<pad>", "<unk>", "red", "blue", "green", "a"])}
    plain = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="<pad>", unk_token="<unk>").save_pretrained(
        folder / "tokenizer"
    )
    torch.manual_seed(1)
    config = {**open_clip.get_model_config(OTHER)}
    config.pop("custom_text")
    save_file(open_clip.CustomTextCLIP(**config).state_dict(), folder / "other.safetensors")
    return folder / "other.safetensors", folder / "tokenizer"


def test_a_tokenizer_from_a_folder_is_kept_with_the_tower(other: tuple[Path, Path], tmp_path: Path) -> None:
    weights, folder = other
    towers = build(f"clip:{OTHER}", "default", "crop", weights, str(folder))
    expected = towers.text.rows(["red", "a blue", "Red!"])
    np.testing.assert_allclose(expected[0], expected[2], atol=1e-6)  # cleaned as the model's configuration says
    assert np.abs(expected[0] - expected[1]).max() > 1e-3
    towers.text.save(tmp_path)
    np.testing.assert_array_equal(TextTower.open(tmp_path / TEXT_TOWER).rows(["red", "a blue", "Red!"]), expected)


def test_a_run_with_such_a_tokenizer_is_searched_without_the_folder(
    other: tuple[Path, Path], source: Path, words: Path, tmp_path: Path
) -> None:
    weights, folder = other
    shutil.copytree(folder, tmp_path / "tokenizer")
    asked = {"backbone": f"clip:{OTHER}", "weights": weights, "tokenizer": tmp_path / "tokenizer", "vocabulary": words}
    run = ImageClusterer(clusters=3, out=tmp_path / "run.shoal", **asked).fit(source).run_dir_
    shutil.rmtree(tmp_path / "tokenizer")
    assert len(ImageClusterer.load(run.root).find("a red", n=5)) == 5


def test_a_tokenizer_comes_from_the_hub_where_no_folder_is_given(other: tuple[Path, Path], hub: Hub) -> None:
    weights, folder = other
    put(hub, "me/tokenizer", {path.name: path.read_bytes() for path in folder.iterdir()})
    found = build(f"clip:{OTHER}", "default", "crop", weights, None).text.rows(["red", "a blue"])
    expected = build(f"clip:{OTHER}", "default", "crop", weights, str(folder)).text.rows(["red", "a blue"])
    np.testing.assert_array_equal(found, expected)


def test_a_folder_that_is_no_tokenizer_is_refused(other: tuple[Path, Path], toy: Path, tmp_path: Path) -> None:
    weights, _ = other
    with pytest.raises(
        ConfigError, match=r"--tokenizer has value .* expected a folder with the model's tokenizer\.json"
    ):
        prepare(f"clip:{OTHER}", str(weights), "default", "crop", Progress(), str(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(WeightsError, match="cannot be made of its files"):
        prepare(f"clip:{OTHER}", str(weights), "default", "crop", Progress(), str(tmp_path))
    with pytest.raises(ConfigError, match="has open_clip's own tokenizer"):
        prepare(BACKBONE, str(toy), "default", "crop", Progress(), str(tmp_path))


def test_a_missing_tokenizer_library_is_named(other: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    weights, folder = other
    there = needs.find_spec
    monkeypatch.setattr(needs, "find_spec", lambda name: None if name == "transformers" else there(name))
    with pytest.raises(ConfigError, match="needs transformers, which is not installed: pip install transformers"):
        build(f"clip:{OTHER}", "default", "crop", weights, str(folder))


# -- the file of the text tower ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (b'\\"format_version\\": 1', b'\\"format_version\\": 2', "format_version has value 2"),
        (b"shoal-toy", b"shoal-top", "name has value 'shoal-top'"),
        (b'"shoal"', b'"whale"', "expected the key 'shoal'"),
        (b'{"', b"{,", "no readable text tower"),
        (
            b'"text_projection"',
            b'"text_projectiom"',
            "tensor 'text_projectiom' is [16, 16]; in clip:shoal-toy it is not",
        ),
    ],
)
def test_a_text_tower_from_elsewhere_is_looked_at(
    before: bytes, after: bytes, told: str, toy: Path, tmp_path: Path
) -> None:
    path = prepared(toy).text_tower
    assert path is not None
    data = path.read_bytes()
    assert before in data
    (tmp_path / TEXT_TOWER).write_bytes(data.replace(before, after, 1))
    with pytest.raises(ShoalError) as caught:
        TextTower.open(tmp_path / TEXT_TOWER)
    assert told in str(caught.value)
    assert str(tmp_path / TEXT_TOWER) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_tokenizer_s_file_from_elsewhere_is_written_where_it_says(toy: Path, tmp_path: Path) -> None:
    path = prepared(toy).text_tower
    assert path is not None
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    more = {"tokenizer/../../evil.json": torch.zeros(2, dtype=torch.uint8)}
    save_file(load_file(path) | more, tmp_path / TEXT_TOWER, metadata)
    with pytest.raises(WeightsError, match=r"evil\.json.* is not there"):
        TextTower.open(tmp_path / TEXT_TOWER)


# -- names -------------------------------------------------------------------------------------------------------------


def test_clusters_are_called_by_words_of_one_s_own(kept: RunDir) -> None:
    assert names(kept) == {colour: {colour} for colour in COLOURS}
    found = guesses_file.read(kept.model / GUESSES)
    assert found is not None
    assert {one.wnid for one in found.medium} == {None}
    assert {guess.word for one in found.medium for guess in one.others} <= {"red", "blue", "green", "yellow"}


def test_probabilities_are_a_softmax_of_scaled_cosines(kept: RunDir, toy: Path) -> None:
    tower = tower_of(toy)
    rows = tower.words(["red", "blue", "green", "yellow"], Progress())
    store = EmbeddingStore.open(kept.embeddings)
    features = store.read(np.arange(store.rows)).astype(np.float64)
    logits = tower.scale * features @ rows.T / np.linalg.norm(features, axis=1, keepdims=True)
    expected = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected /= expected.sum(axis=1, keepdims=True)
    read = classes.read(kept)
    assert read is not None
    likeliest, known = read
    assert known.said == ("red", "blue", "green", "yellow")
    found = np.zeros_like(expected)
    np.put_along_axis(found, likeliest.classes.astype(np.int64), likeliest.probabilities.astype(np.float64), axis=1)
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_without_a_vocabulary_names_are_wordnet_s_with_what_they_are_kinds_of(
    toy: Path, source: Path, tmp_path: Path
) -> None:
    run = fit(tmp_path / "run.shoal", source, toy)
    read = classes.read(run)
    assert read is not None
    assert read[1].name == "ImageNet-1k"
    found = guesses_file.read(run.model / GUESSES)
    assert found is not None
    assert found.vocabulary == "ImageNet-1k"
    named = {one.name: one.wnid for one in found.medium if one.name is not None and one.wnid is not None}
    assert named  # a red wolf is red, if no wolf
    for name, wnid in named.items():
        place = read[1].place(wnid)
        assert place is not None
        assert name.startswith(read[1].said[place])


def test_another_vocabulary_names_anew_and_embeds_nothing(
    kept: RunDir, toy: Path, source: Path, tmp_path: Path
) -> None:
    (tmp_path / "words.txt").write_text("fire engine red\nsea blue\nmeadow green\n")
    root = tmp_path / "run.shoal"
    shutil.copytree(kept.root, root)
    run = fit(root, source, toy, vocabulary=tmp_path / "words.txt")
    assert names(run) == {"red": {"fire engine red"}, "blue": {"sea blue"}, "green": {"meadow green"}}
    stages, before = run.read_state()["stages"], kept.read_state()["stages"]
    assert stages["embed"]["facts"]["embedded_now"] == 0
    assert stages["cluster"] == before["cluster"]


@pytest.mark.usefixtures("no_open_clip")
def test_what_was_made_ready_once_needs_the_text_tower_no_more(
    kept: RunDir, toy: Path, source: Path, words: Path, tmp_path: Path
) -> None:
    run = fit(tmp_path / "run.shoal", source, toy, vocabulary=words)
    assert names(run) == names(kept)


def test_labels_are_not_compared_with_words_of_one_s_own(kept: RunDir) -> None:
    found = evaluate(kept, "folders")
    assert found.acc == 1
    assert found.names is None


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (None, "which is not there"),
        (b"", "which has 0 words"),
        (b"dog\nDog\n", "which has 1 words"),
        (b"dog\n\xff\xfe\n", "which cannot be read"),
        (b"dog\ncat\x1b[2J\n", "whose line 2"),
        (b"dog\n" + b"c" * 201, "whose line 2"),
    ],
)
def test_a_vocabulary_that_is_none_is_refused(data: bytes | None, told: str, tmp_path: Path) -> None:
    if data is not None:
        (tmp_path / "words.txt").write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        own_words.read(str(tmp_path / "words.txt"))
    assert told in str(caught.value)
    assert "expected a text file with a word or phrase a line" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_vocabulary_s_words_are_each_once_and_without_blanks_around(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_bytes("\ufeffred\r\n\r\n  fire   engine \r\nRED\r\nblue".encode())
    assert own_words.read(str(tmp_path / "words.txt")) == ("red", "fire engine", "blue")


@pytest.mark.parametrize("option", ["vocabulary", "tokenizer"])
def test_what_goes_with_a_text_tower_alone_is_told(option: str) -> None:
    with pytest.raises(ConfigError, match=rf"--{option} has value 'x', which goes with --backbone clip:NAME/TAG"):
        ClusterConfig(source=("pictures",), **{option: "x"})
    with pytest.raises(ConfigError, match=rf"--{option} has value 'x', and --embeddings is given"):
        ClusterConfig(source=("pictures",), embeddings="x.npy", **{option: "x"})


# -- free text ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("colour", list(COLOURS))
@pytest.mark.parametrize("text", ["{}", "a photo of the small {}.", "speckles of {}"])
def test_images_are_found_by_free_text(text: str, colour: str, kept: RunDir) -> None:
    found = ImageClusterer.load(kept.root).find(text.format(colour), n=EACH)
    assert list(found.columns) == ["id", "path", "score", "cluster"]
    assert {path.split("/")[0] for path in found["path"]} == {colour}
    assert found["score"].is_monotonic_decreasing
    assert found["score"].between(-1, 1).all()


def test_a_score_is_the_cosine_of_image_and_text_less_half_of_that_with_minus_texts(kept: RunDir, toy: Path) -> None:
    rows = tower_of(toy).rows(["green or blue", "green", "a red one"])
    features = EmbeddingStore.open(kept.embeddings).read(np.arange(3 * EACH))
    cosines = features @ rows.T / np.linalg.norm(features, axis=1, keepdims=True)
    for query, expected in (
        ("green or blue", cosines[:, 0]),
        ('green or blue -green -"a red one"', cosines[:, 0] - (cosines[:, 1] + cosines[:, 2]) / 2),
    ):
        found = ImageClusterer.load(kept.root).find(query, n=100)
        assert sorted(found["id"]) == list(range(3 * EACH))
        np.testing.assert_allclose(found["score"], expected[found["id"]], atol=1e-5)


def test_minus_words_take_away(kept: RunDir) -> None:
    found = ImageClusterer.load(kept.root).find("green blue -green", n=EACH)
    assert {path.split("/")[0] for path in found["path"]} == {"blue"}


def test_the_command_tells_cosines(kept: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert shoal("find", kept.root, "something", "red", "-blue", "-n", 3) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["cosine", "cluster", "path"]
    assert all(line.split()[2].startswith("red/") for line in lines)
    assert shoal("find", kept.root, "-red") == 2
    assert "expected a text to look for" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("query", "text", "minus"),
    [
        ("a dog on snow", "a dog on snow", ()),
        ("a dog -snow on grass", "a dog on grass", ("snow",)),
        ('"a  dog" -"deep snow" -ice', "a dog", ("deep snow", "ice")),
        ("black-and-white, blurred", "black-and-white, blurred", ()),
        ('-snow - ""', "", ("snow",)),
    ],
)
def test_a_query_is_one_text_but_for_what_has_a_minus(query: str, text: str, minus: tuple[str, ...]) -> None:
    assert free_text.parse(query) == free_text.FreeText(text, minus)


@pytest.mark.usefixtures("no_open_clip")
def test_free_text_says_what_it_needs(kept: RunDir) -> None:
    with pytest.raises(ConfigError, match=r"by text needs open_clip_torch.*pip install open_clip_torch"):
        ImageClusterer.load(kept.root).find("red")


def test_nothing_to_look_for_is_told(kept: RunDir) -> None:
    with pytest.raises(RequestError, match="expected a text to look for"):
        ImageClusterer.load(kept.root).find("-red")


# -- elsewhere ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_hub")
def test_a_run_is_whole_on_a_machine_that_has_nothing_of_it(
    kept: RunDir, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ImageClusterer.load(kept.root).save(tmp_path / "copy.shoal")
    monkeypatch.setenv("SHOAL_CACHE", str(tmp_path / "new-cache"))
    moved = ImageClusterer.load(tmp_path / "copy.shoal")
    found = moved.find("blue", n=EACH)
    assert {path.split("/")[0] for path in found["path"]} == {"blue"}
    assigned = moved.predict(source)
    assert (assigned["path"].str.split("/").str[0] == assigned["name"]).all()


@pytest.mark.usefixtures("no_hub")
def test_a_published_model_assigns_and_names_and_says_which_weights_it_has(
    kept: RunDir, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ImageClusterer.load(kept.root).publish(tmp_path / "model")
    monkeypatch.setenv("SHOAL_CACHE", str(tmp_path / "new-cache"))
    assigned = ImageClusterer.load(tmp_path / "model").predict(source)
    assert (assigned["path"].str.split("/").str[0] == assigned["name"]).all()
    assert {path.name for path in (tmp_path / "model").iterdir()} >= {GUESSES}
    assert not (tmp_path / "model" / TEXT_TOWER).exists()  # it has no images that could be looked for
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert f"`{BACKBONE}` (the image tower of a model of open_clip's)" in card
    assert config["encoder"]["weights_sha256"] in card
    assert "words of its maker's own" in card
    assert "ImageNet" not in card


def test_another_backbone_in_the_same_run_leaves_no_text_tower(kept: RunDir, source: Path, tmp_path: Path) -> None:
    shutil.copytree(kept.root, tmp_path / "run.shoal")
    run = ImageClusterer(clusters=3, out=tmp_path / "run.shoal").fit(source).run_dir_
    assert not (run.model / TEXT_TOWER).is_file()
    with pytest.raises(RequestError, match="is no word that is known here"):
        ImageClusterer.load(run.root).find("qzxv")
