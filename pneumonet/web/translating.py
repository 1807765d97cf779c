"""A page whose components are said in the language of whoever opens it, and can be said in another."""

import copy
from collections.abc import Callable, Iterable
from typing import Any

import gradio as gr

from pneumonet.language import ENGLISH, Language
from pneumonet.web.languages import current_language

Props = Callable[[Language], dict[str, Any]]


class TranslatedBlocks(gr.Blocks):  # type: ignore[misc]
    """Blocks whose config, which the browser draws the page from, is in the language of the request.

    Gradio's own I18n follows the browser's language alone, in the browser; here a choice by hand counts too, and the
    first thing drawn is in the right language.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        """Take what gr.Blocks takes."""
        self.said: dict[Any, Props] = {}
        self._configs: dict[str, Any] = {}
        super().__init__(*args, **options)

    def say(self, component: Any, props: Props) -> None:
        """Give a component its words.

        Args:
            component: A component of this page.
            props: Returns its properties that are words, in a language.
        """
        self.said[component] = props
        for name, text in props(ENGLISH).items():
            setattr(component, name, text)

    def updates(self, components: Iterable[Any], language: Language) -> list[Any]:
        """Return the updates that say components in a language."""
        return [gr.update(**self.said[component](language)) for component in components]

    @property
    def config(self) -> Any:
        """The config as the browser gets it: `gr.Blocks.get_config_file`, in the language of the request."""
        language = current_language.get()
        if language.tag not in self._configs:
            self._configs[language.tag] = self._translated(language)
        return self._configs[language.tag]

    @config.setter
    def config(self, config: Any) -> None:
        self._configs = {ENGLISH.tag: config}

    def _translated(self, language: Language) -> Any:
        config = copy.deepcopy(self._configs[ENGLISH.tag])
        props = {component._id: said for component, said in self.said.items()}
        for component in config["components"]:
            if component["id"] in props:
                component["props"].update(props[component["id"]](language))
        return config
