// Renders kustomizations as `kustomize build` does, by the same library: for each directory named on the command line it prints
// what that comes to, as an array of objects. A file that is named is read as YAML, document by document.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resmap"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/kustomize/kyaml/kio"
)

func main() {
	all := [][]any{}
	for _, path := range os.Args[1:] {
		objects, err := read(path)
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", path, err)
			os.Exit(1)
		}
		all = append(all, objects)
	}
	if err := json.NewEncoder(os.Stdout).Encode(all); err != nil {
		panic(err)
	}
}

func read(path string) ([]any, error) {
	about, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if about.IsDir() {
		return render(path)
	}
	return parse(path)
}

func render(path string) ([]any, error) {
	var rendered resmap.ResMap
	rendered, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), path)
	if err != nil {
		return nil, err
	}
	objects := []any{}
	for _, resource := range rendered.Resources() {
		object, err := resource.Map()
		if err != nil {
			return nil, err
		}
		objects = append(objects, object)
	}
	return objects, nil
}

func parse(path string) ([]any, error) {
	text, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer text.Close()
	nodes, err := (&kio.ByteReader{Reader: text, OmitReaderAnnotations: true}).Read()
	if err != nil {
		return nil, err
	}
	objects := []any{}
	for _, node := range nodes {
		object, err := node.Map()
		if err != nil {
			return nil, err
		}
		objects = append(objects, object)
	}
	return objects, nil
}
