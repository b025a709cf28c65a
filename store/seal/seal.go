// Package seal encrypts the records of a [dialog.Store], so that a reader of the store
// learns nothing of the calls: AES-256-GCM, with the standard library alone. Its methods are
// for StackConfig.Seal and StackConfig.Open:
//
//	keys, err := seal.New(seal.Key{ID: "2026-11", Secret: secret})
//	config.Seal, config.Open = keys.Seal, keys.Open
//
// To change the key, first give all processes the new key behind the old one; then the new
// one before the old one; and leave the old one out when all records that it has sealed have
// expired (Record.Expires).
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
)

// Key is a secret, and the name by which a record says that it was sealed with it.
type Key struct {
	// ID is at most 255 bytes long. It is in each record, not encrypted.
	ID string
	// Secret has 32 bytes, from a source of random numbers such as crypto/rand.
	Secret []byte
}

// Keys seals with the first of its keys, and opens with each of them. All methods may be
// called from any goroutine.
type Keys struct{ keys []Key }

// The errors of this package.
var (
	// ErrKey says that a key cannot be used: its ID or Secret has the wrong length, or two
	// have the same ID; or that there is none.
	ErrKey = errors.New("seal: unusable key")
	// ErrUnknownKey says that a record was sealed with another key.
	ErrUnknownKey = errors.New("seal: unknown key")
	// ErrDamaged says that a record is not as it was sealed.
	ErrDamaged = errors.New("seal: damaged record")
)

const (
	version   = 1
	secretLen = 32
	saltLen   = 16
	nonceLen  = 12
)

// New returns Keys, the first of which is for new records.
//
// Errors: ErrKey.
func New(keys ...Key) (*Keys, error) {
	if len(keys) == 0 {
		return nil, ErrKey
	}
	own := &Keys{}
	for _, k := range keys {
		if len(k.ID) > 255 || len(k.Secret) != secretLen || own.find(k.ID) != nil {
			return nil, fmt.Errorf("%w: %q", ErrKey, k.ID)
		}
		own.keys = append(own.keys, Key{ID: k.ID, Secret: append([]byte(nil), k.Secret...)})
	}
	return own, nil
}

func (k *Keys) find(id string) *Key {
	for i := range k.keys {
		if k.keys[i].ID == id {
			return &k.keys[i]
		}
	}
	return nil
}

// Seal encrypts a record.
//
// A record begins with the version, and the length and text of the ID, which are
// authenticated; then come a salt, a nonce, and the encrypted data. The salt makes a key for
// each record (HKDF), so that the number of records is not bounded by the length of the nonce.
func (k *Keys) Seal(data []byte) ([]byte, error) {
	key := k.keys[0]
	sealed := append([]byte{version, byte(len(key.ID))}, key.ID...)
	head := len(sealed)
	random := make([]byte, saltLen+nonceLen)
	if _, err := rand.Read(random); err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	aead, err := key.aead(random[:saltLen])
	if err != nil {
		return nil, err
	}
	sealed = append(sealed, random...)
	return aead.Seal(sealed, random[saltLen:], data, sealed[:head:head]), nil
}

// Open decrypts what Seal has returned.
//
// Errors: ErrUnknownKey, ErrDamaged.
func (k *Keys) Open(sealed []byte) ([]byte, error) {
	if len(sealed) < 2 || sealed[0] != version || len(sealed) < 2+int(sealed[1])+saltLen+nonceLen {
		return nil, ErrDamaged
	}
	head := 2 + int(sealed[1])
	key := k.find(string(sealed[2:head]))
	if key == nil {
		return nil, fmt.Errorf("%w: %q", ErrUnknownKey, sealed[2:head])
	}
	salt, rest := sealed[head:head+saltLen], sealed[head+saltLen:]
	aead, err := key.aead(salt)
	if err != nil {
		return nil, err
	}
	data, err := aead.Open(nil, rest[:nonceLen], rest[nonceLen:], sealed[:head])
	if err != nil {
		return nil, ErrDamaged
	}
	return data, nil
}

// aead is the cipher of a record with that salt.
func (k *Key) aead(salt []byte) (cipher.AEAD, error) {
	own, err := hkdf.Key(sha256.New, k.Secret, salt, "sipdialog record", secretLen)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	block, err := aes.NewCipher(own)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return cipher.NewGCM(block)
}
