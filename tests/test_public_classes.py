"""What the public classes say of themselves, and what they say to wrong arguments."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import pydoc
import subprocess
import sys
from types import ModuleType

import pytest
from flytekit import task
from kubernetes.client import V1ObjectMeta, V1PodSpec

import flytekitplugins.inference as package
from flytekitplugins.inference import (
    NIM,
    VLLM,
    ConfigError,
    LlamaCpp,
    ModelInferenceTemplate,
    ModelServers,
    NIMSecrets,
    OllamaModel,
    Probe,
    Volume,
    installed_servers,
)
from flytekitplugins.inference.client.batch import batch
from flytekitplugins.inference.client.batch.batch_options import BatchArguments, BatchOptions
from flytekitplugins.inference.client.client_options import ClientOptions, limits_of
from flytekitplugins.inference.client.endpoint import Endpoint
from flytekitplugins.inference.errors import ArgumentError
from flytekitplugins.inference.field_docs import field_texts, own_texts
from flytekitplugins.inference.pod.foreign_keywords import POD_FIELDS, TASK_KEYWORDS

DATACLASSES = [
    value
    for name in package.__all__
    if isinstance(value := getattr(package, name), type) and dataclasses.is_dataclass(value)
]
CLASSES = [*DATACLASSES, Endpoint]


def given_fields(cls: type) -> list[dataclasses.Field[object]]:
    return [field for field in dataclasses.fields(cls) if field.init]  # type: ignore[arg-type]


class TestNames:
    def test_the_directory_is_what_is_public(self) -> None:
        assert dir(package) == sorted(package.__all__)

    def test_every_public_name_is_there(self) -> None:
        assert all(getattr(package, name) is not None for name in package.__all__)

    def test_the_old_name_of_ollamas_model_works_and_is_deprecated(self) -> None:
        assert "Model" not in package.__all__
        with pytest.warns(DeprecationWarning, match="OllamaModel"):
            assert package.Model is OllamaModel
        from flytekitplugins.inference.ollama.serve import Model

        assert Model is OllamaModel

    def test_a_name_that_does_not_exist_is_an_attribute_error(self) -> None:
        with pytest.raises(AttributeError, match="VLM"):
            _ = package.VLM


class TestHelp:
    """`help()` tells every field; editors read the same texts below the fields."""

    @pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
    def test_every_field_is_told_with_its_meaning_and_default(self, cls: type) -> None:
        # wrapped lines of fields begin deeper; words are compared
        words = " ".join(pydoc.plain(pydoc.render_doc(cls)).replace("|", " ").split())
        texts = field_texts(cls)
        for field in given_fields(cls):
            assert texts.get(field.name), f"{field.name} has no text below it"
            meaning = " ".join(texts[field.name].replace("|", " ").split())
            default = "required"
            if field.default is not dataclasses.MISSING:
                default = f"default {field.default!r}"
            elif field.default_factory is not dataclasses.MISSING:
                default = f"default {field.default_factory()!r}"
            assert f", {default}): {meaning}" in words, field.name

    @pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
    def test_a_field_with_a_default_of_its_own_has_a_text_of_its_own(self, cls: type) -> None:
        """Editors show the text below the nearest declaration, and none when that has none."""
        for base in cls.__mro__:
            declared = (
                vars(base).get("__annotations__", {}) if dataclasses.is_dataclass(base) else {}
            )
            fields = {field.name for field in given_fields(cls)} & declared.keys()
            assert fields <= own_texts(base).keys(), base

    def test_every_installed_server_is_among_them(self) -> None:
        assert set(installed_servers().values()) <= set(CLASSES)

    def test_the_classs_own_text_comes_first_and_its_own_fields_before_its_bases(self) -> None:
        text = inspect.getdoc(VLLM) or ""
        assert text.startswith("A vLLM server beside a task.\n")
        assert text.index("\n    arg_dict (") < text.index("\n    image (")

    def test_a_default_of_the_class_goes_before_that_of_its_base(self) -> None:
        assert "mem (str, default '10Gi')" in (VLLM.__doc__ or "")
        assert "mem (str, default '1Gi')" in (ModelInferenceTemplate.__doc__ or "")

    def test_a_class_without_a_text_tells_its_fields(self) -> None:
        @dataclasses.dataclass(frozen=True, kw_only=True)
        class Sentiment(ModelInferenceTemplate):
            threshold: float = 0.5
            """From 0 to 1."""

        text = inspect.getdoc(Sentiment) or ""
        assert text.startswith("Sentiment.\n")
        assert "    threshold (float, default 0.5): From 0 to 1." in text

    def test_a_class_whose_source_is_not_there_tells_names_and_defaults(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        module = ModuleType("typed_in_an_interpreter")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        exec(  # as in an interpreter
            "from dataclasses import dataclass\n"
            "from flytekitplugins.inference import ModelInferenceTemplate\n"
            "@dataclass(frozen=True, kw_only=True)\n"
            "class Typed(ModelInferenceTemplate):\n"
            "    size: int = 3\n",
            vars(module),
        )
        assert "    size (int, default 3)" in (inspect.getdoc(module.Typed) or "")

    def test_importing_reads_no_source(self) -> None:
        code = "import sys, flytekitplugins.inference as root; root.VLLM; root.NIM; root.Ollama"
        check = "print('flytekitplugins.inference.field_docs' in sys.modules)"
        done = subprocess.run(
            [sys.executable, "-c", f"{code}; {check}"], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == "False"


class TestWrongArguments:
    @pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
    def test_every_class_says_which_field_is_meant(self, cls: type) -> None:
        for field in given_fields(cls):
            wrong = f"{field.name}x"
            with pytest.raises(ArgumentError) as caught:
                cls(**{wrong: 1})
            assert f"{cls.__name__}(…)" in str(caught.value)
            assert f"{wrong!r}: did you mean {field.name}=?" in str(caught.value)

    def test_it_is_the_error_that_python_raises_and_a_wrong_description(self) -> None:
        with pytest.raises(TypeError) as caught:
            VLLM(modle="x")  # type: ignore[call-arg]
        assert isinstance(caught.value, ConfigError)
        assert str(caught.value) == "VLLM(…) has no keyword 'modle': did you mean model=?"

    def test_all_wrong_keywords_are_told_at_once(self) -> None:
        with pytest.raises(ArgumentError) as caught:
            VLLM(modle="x", tolerations=[], requests=None, zzz=1)  # type: ignore[call-arg]
        told = dict(problem.split(": ", 1) for problem in caught.value.problems)
        assert list(told) == ["'modle'", "'tolerations'", "'requests'", "'zzz'"]
        assert told["'zzz'"].startswith("it takes api_key_secret, arg_dict, ")

    @pytest.mark.parametrize(
        ("keyword", "field"),
        [
            ("healthEndpoint", "health_endpoint"),
            ("securityContext", "security_context"),
            ("GPU", "gpu"),
            ("memory", "mem"),
            ("start_timeout", "startup_timeout"),
        ],
    )
    def test_other_spellings_are_known(self, keyword: str, field: str) -> None:
        with pytest.raises(ArgumentError, match=f"did you mean {field}="):
            VLLM(**{keyword: 1})

    @pytest.mark.parametrize(
        ("cls", "values", "told"),
        [
            (
                LlamaCpp,
                ("x.gguf",),
                r"takes no values.*got 1\. Hint: Name them: LlamaCpp\(model=…\)",
            ),
            (Volume, ("data",), r"Volume\(name=…\)"),
            (ModelServers, ({}, {}), r"takes at most 1 values.*got 2"),
        ],
    )
    def test_values_without_a_name_are_refused(
        self, cls: type, values: tuple[object, ...], told: str
    ) -> None:
        with pytest.raises(ArgumentError, match=told):
            cls(*values)

    def test_a_variant_is_refused_in_the_same_way(self) -> None:
        with pytest.raises(ArgumentError, match="did you mean port="):
            dataclasses.replace(VLLM(model="a/b"), prot=1)  # type: ignore[call-arg]

    def test_a_class_with_an_init_of_its_own_takes_what_that_takes(self) -> None:
        class Sized(VLLM):
            def __init__(self, size: int) -> None:
                super().__init__(model=f"owner/{size}b")

        class Open(VLLM):
            def __init__(self, **options: object) -> None:
                super().__init__(model="owner/name")

        assert Sized(7).model == "owner/7b"
        assert Open(anything=1).model == "owner/name"
        with pytest.raises(ArgumentError, match="did you mean size="):
            Sized(siez=7)  # type: ignore[call-arg]

    @pytest.mark.parametrize(
        "made",
        [VLLM(model="a/b"), Probe(path="/x"), NIMSecrets(ngc_secret_key="key"), OllamaModel("x")],
        ids=lambda made: type(made).__name__,
    )
    def test_instances_are_copied_and_pickled(self, made: object) -> None:
        assert copy.copy(made) == copy.deepcopy(made) == pickle.loads(pickle.dumps(made)) == made

    def test_a_field_that_is_missing_is_named_by_python(self) -> None:
        with pytest.raises(TypeError, match="'secrets'"):
            NIM()  # type: ignore[call-arg]


def snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


class TestWhatBelongsElsewhere:
    """Keywords that are right in a pod or in `@task`."""

    @pytest.mark.parametrize("name", sorted(POD_FIELDS))
    def test_the_pods_are_led_to_base(self, name: str) -> None:
        for keyword in {name, snake(name)} - set(VLLM.__dataclass_fields__):
            with pytest.raises(ArgumentError) as caught:
                VLLM(**{keyword: None})
            is_ours = snake(name) in VLLM.__dataclass_fields__  # in another spelling
            expected = f"did you mean {snake(name)}=?" if is_ours else f'base={{"spec": {{"{name}"'
            assert expected in str(caught.value)

    @pytest.mark.parametrize("name", ["labels", "annotations"])
    def test_the_pods_metadata_is_led_to_base(self, name: str) -> None:
        for cls in (VLLM, ModelServers):
            with pytest.raises(ArgumentError) as caught:
                cls(**{name: {}})
            assert f'base={{"metadata": {{"{name}": …}}}}' in str(caught.value)

    @pytest.mark.parametrize("name", sorted(TASK_KEYWORDS))
    def test_the_tasks_are_led_to_the_task(self, name: str) -> None:
        with pytest.raises(ArgumentError, match=rf"it belongs to the task, @task\({name}=…\)"):
            VLLM(**{name: None})

    @pytest.mark.parametrize(
        ("name", "ours"),
        [
            ("container_image", "image="),
            ("requests", "cpu= and mem= and gpu="),
            ("timeout", "startup_timeout="),
        ],
    )
    def test_the_servers_own_field_is_named_too(self, name: str, ours: str) -> None:
        with pytest.raises(ArgumentError, match=f"; for the model server give {ours}"):
            VLLM(**{name: None})

    def test_nothing_of_kubernetes_is_missing(self) -> None:
        told = {*POD_FIELDS, *TASK_KEYWORDS}
        assert set(V1PodSpec.attribute_map.values()) <= told
        assert {"labels", "annotations"} <= set(V1ObjectMeta.attribute_map)

    def test_nothing_of_flytekit_is_missing(self) -> None:
        others = {"_task_function", "kwargs", "labels", "annotations"}  # the last two are the pod's
        assert set(inspect.signature(task).parameters) - others <= set(TASK_KEYWORDS)

    def test_several_servers_are_led_to_their_dict_and_fields_to_a_server(self) -> None:
        with pytest.raises(ArgumentError) as caught:
            ModelServers(llm=VLLM(model="a/b"), gpu=1, tolerations=[])  # type: ignore[call-arg]
        assert caught.value.problems == (
            "'llm': servers are given as a dict: ModelServers({\"llm\": VLLM(…)})",
            "'gpu': it belongs to a server, such as VLLM(gpu=…)",
            '\'tolerations\': it belongs to the pod, base={"spec": {"tolerations": …}}',
        )


class TestOptions:
    """The options of `client()` and `batch()`: refused at the call, before a server is needed."""

    ENDPOINT = Endpoint(url="http://localhost:1", protocol="openai")

    @pytest.mark.parametrize("method", ["client", "async_client"])
    def test_a_wrong_option_of_a_client_names_the_right_one(self, method: str) -> None:
        for made in (VLLM(model="a/b"), self.ENDPOINT):
            with pytest.raises(ArgumentError, match="'time_out': did you mean timeout="):
                getattr(made, method)(time_out="soon")

    @pytest.mark.parametrize("method", ["batch", "abatch"])
    def test_a_wrong_option_of_a_batch_names_the_right_one(self, method: str) -> None:
        for made in (VLLM(model="a/b"), self.ENDPOINT):
            with pytest.raises(ArgumentError) as caught:
                getattr(made, method)(["a"], wrok=1, max_concurency="many")
            assert caught.value.problems == (
                "'wrok': did you mean work=?",
                "'max_concurency': did you mean max_concurrency=?",
            )

    def test_a_batch_without_work_says_what_is_missing(self) -> None:
        with pytest.raises(ArgumentError, match=r"needs work=.*Hint: Give work=chat\(\)"):
            batch(self.ENDPOINT, ["a"])  # type: ignore[call-arg]

    def test_the_types_of_a_batchs_options_are_those_of_its_arguments(self) -> None:
        own = set(BatchArguments.__annotations__) - {"endpoint", "rows"}
        declared = {
            name: kind.__forward_arg__ for name, kind in BatchOptions.__annotations__.items()
        }
        assert declared == {name: BatchArguments.__annotations__[name] for name in own}

    def test_the_texts_tell_the_defaults(self) -> None:
        defaults = {field.name: field.default for field in dataclasses.fields(BatchArguments)}
        texts = field_texts(BatchOptions)
        for name in set(BatchOptions.__annotations__) - {"work"}:
            default = defaults[name]
            shown = f"{default:g}" if type(default) is float else f"{default}"
            shown = f"`{shown}`" if shown in ("True", "False", "None") else shown
            assert texts[name].endswith(f"Default: {shown}."), name
            if shown not in ("`None`", "`True`"):
                assert f"default {shown}" in " ".join((Endpoint.batch.__doc__ or "").split()), name

    def test_the_texts_tell_the_defaults_of_clients(self) -> None:
        limits = limits_of({})
        texts = field_texts(ClientOptions)
        method = " ".join((Endpoint.client.__doc__ or "").split())
        for name, default in (
            ("timeout", f"{limits.timeout_seconds:g}"),
            ("outage_seconds", f"{limits.outage_seconds:g}"),
            ("retry_busy", f"`{limits.retry_busy}`"),
        ):
            assert texts[name].endswith(f"Default: {default}.")
            assert f"default {default}" in method
